import { describe, expect, it } from "vitest";

import { samplingFields } from "../src/lib/sampling";
import { DEFAULTS, merge } from "../src/lib/settings.svelte";

describe("merge", () => {
  it("takes what fits and keeps the defaults for the rest", () => {
    const stored = { temperature: 0, maxTokens: null, seed: 7, topP: "1", unknown: 1, theme: "dark" };
    expect(merge(stored)).toEqual({ ...DEFAULTS, temperature: 0, maxTokens: null, seed: 7, theme: "dark" });
  });

  it.each([null, undefined, 7, "x", []])("survives %j", (stored) => {
    expect(merge(stored)).toEqual(DEFAULTS);
  });
});

describe("samplingFields", () => {
  it("leaves out what is not set", () => {
    expect(samplingFields({ ...DEFAULTS, maxTokens: null }, undefined)).toEqual({
      temperature: 0.7,
      top_p: 0.95,
      top_k: 40,
      min_p: 0.05,
    });
  });

  it("lets an example fix temperature and length", () => {
    const fields = samplingFields({ ...DEFAULTS, seed: 3 }, { temperature: 0, maxTokens: 6 });
    expect(fields).toMatchObject({ temperature: 0, max_tokens: 6, seed: 3 });
  });
});

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { Meter } from "../src/lib/meter";
import { Painter } from "../src/lib/painter";

describe("Meter", () => {
  it("estimates from events, and leaves the prompt's time out of the rate", () => {
    let now = 1000;
    const meter = new Meter(() => now);
    expect(meter.stats()).toMatchObject({ completionTokens: 0, tokensPerSecond: null, firstTokenSeconds: null });
    for (now of [3000, 3100, 3200, 3300, 3400]) meter.count({ text: "x" });
    expect(meter.stats()).toMatchObject({ completionTokens: 5, tokensPerSecond: 10, firstTokenSeconds: 2 });
  });

  it("prefers the server's figures when they come", () => {
    const meter = new Meter(() => 0);
    meter.count({ text: "x" });
    meter.count({
      text: "",
      usage: { prompt_tokens: 9, completion_tokens: 7, prompt_tokens_details: { cached_tokens: 4 } },
      timings: { predicted_per_second: 33 },
    });
    expect(meter.stats()).toEqual({
      promptTokens: 9,
      cachedTokens: 4,
      completionTokens: 7,
      tokensPerSecond: 33,
      firstTokenSeconds: 0,
    });
  });
});

describe("Painter", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  it("paints the first text at once and the rest at most every 50 ms", () => {
    const paints: string[] = [];
    const painter = new Painter((text) => paints.push(text));
    for (let token = 0; token < 100; token++) {
      painter.add(String(token % 10));
      vi.advanceTimersByTime(5);
    }
    expect(paints[0]).toBe("0");
    expect(paints.length).toBeLessThanOrEqual(11);
    painter.end();
    expect(paints.join("")).toBe("0123456789".repeat(10));
  });

  it("paints nothing after its end", () => {
    const paints: string[] = [];
    const painter = new Painter((text) => paints.push(text));
    painter.add("a");
    painter.add("b");
    painter.end();
    vi.advanceTimersByTime(1000);
    expect(paints).toEqual(["a", "b"]);
  });
});

import { afterEach, describe, expect, it } from "vitest";

import { formatDay, LOCALES, locale, t } from "../src/lib/i18n.svelte";
import { settings } from "../src/lib/settings.svelte";
import { en, type Key } from "../src/locales/en";

const placeholders = (text: string): string[] => [...text.matchAll(/\{\w+\}/g)].map(String).sort();

afterEach(() => (settings.locale = "auto"));

describe("dictionaries", () => {
  it.each(Object.entries(LOCALES))("%s has every text with the same placeholders", (_, { dictionary }) => {
    for (const [key, text] of Object.entries(en)) {
      expect(dictionary[key as Key]).not.toBe("");
      expect(placeholders(dictionary[key as Key])).toEqual(placeholders(text));
    }
  });
});

describe("t", () => {
  it("fills in values as the language writes them", () => {
    settings.locale = "de";
    expect(t("stats.tokens", { count: 1234.5 })).toBe("1.234,5 Token");
    settings.locale = "en";
    expect(t("stats.tokens", { count: 1234.5 })).toBe("1,234.5 tokens");
  });

  it("falls back to a language that there is", () => {
    settings.locale = "tlh";
    expect(locale()).toBe("en");
  });
});

describe("formatDay", () => {
  it("names the last two days and dates the others", () => {
    settings.locale = "en";
    const now = new Date(2026, 10, 22, 0, 30).getTime();
    expect(formatDay(now, now)).toBe("today");
    expect(formatDay(now - 3_600_000, now)).toBe("yesterday");
    expect(formatDay(new Date(2026, 10, 1, 12).getTime(), now)).toBe("November 1, 2026");
  });
});

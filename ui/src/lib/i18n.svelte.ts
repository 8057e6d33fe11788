/** Words of the page. Dictionaries are typed: a missing or misspelt key does not compile. */

import { de } from "../locales/de";
import { en, type Dictionary, type Key } from "../locales/en";
import { settings } from "./settings.svelte";

export const LOCALES: Readonly<Record<string, { name: string; dictionary: Dictionary }>> = {
  en: { name: "English", dictionary: en },
  de: { name: "Deutsch", dictionary: de },
};

/** The language in use: the one that was set, else the first of the browser's that there is. */
export function locale(): string {
  if (settings.locale in LOCALES) return settings.locale;
  const wanted = navigator.languages.map((tag) => tag.split("-", 1)[0] ?? "");
  return wanted.find((tag) => tag in LOCALES) ?? "en";
}

/** The text of `key`, with `{name}` replaced; numbers are written as the language does. */
export function t(key: Key, values: Record<string, string | number> = {}): string {
  const text = (LOCALES[locale()]?.dictionary ?? en)[key];
  return text.replace(/\{(\w+)\}/g, (placeholder, name: string) => {
    const value = values[name];
    return typeof value === "number" ? formatNumber(value) : (value ?? placeholder);
  });
}

/** A number in the language's digits and separators, with at most `digits` decimals. */
export function formatNumber(value: number, digits = 1): string {
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);
}

/** How long ago a day was: "today", "yesterday", or a date. */
export function formatDay(time: number, now = Date.now()): string {
  const days = Math.round((startOfDay(now) - startOfDay(time)) / 86_400_000);
  if (days < 2) return new Intl.RelativeTimeFormat(locale(), { numeric: "auto" }).format(-days, "day");
  return new Intl.DateTimeFormat(locale(), { dateStyle: "long" }).format(time);
}

function startOfDay(time: number): number {
  return new Date(time).setHours(0, 0, 0, 0);
}

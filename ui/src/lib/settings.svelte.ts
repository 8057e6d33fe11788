/** What a person set, kept in localStorage. The key is also read by public/theme.js. */

const KEY = "avllm.settings";

export type Theme = "system" | "light" | "dark";

export interface Settings {
  systemPrompt: string;
  temperature: number;
  /** null: as long as the context allows. */
  maxTokens: number | null;
  topP: number;
  /** 0: all. */
  topK: number;
  minP: number;
  /** null: another one every time. */
  seed: number | null;
  apiKey: string;
  enterSends: boolean;
  theme: Theme;
  /** "auto": as the browser says. */
  locale: string;
}

export const DEFAULTS: Readonly<Settings> = {
  systemPrompt: "",
  temperature: 0.7,
  maxTokens: 1024,
  topP: 0.95,
  topK: 40,
  minP: 0.05,
  seed: null,
  apiKey: "",
  enterSends: true,
  theme: "system",
  locale: "auto",
};

/** Read and write fields directly, then call save(). */
export const settings: Settings = $state(load());

/** Stores the settings; where storage is blocked they last as long as the page. */
export function saveSettings(): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // Nothing to do: the values in memory still hold.
  }
}

/** Puts sampling and system prompt back to what they were at first; keeps key, theme, language. */
export function resetSampling(): void {
  const { apiKey, enterSends, theme, locale } = settings;
  Object.assign(settings, DEFAULTS, { apiKey, enterSends, theme, locale });
  saveSettings();
}

function load(): Settings {
  try {
    return merge(JSON.parse(localStorage.getItem(KEY) ?? "{}"));
  } catch {
    return { ...DEFAULTS };
  }
}

/** Takes the known fields whose type fits; whatever else was stored is dropped. */
export function merge(stored: unknown): Settings {
  const merged: Record<string, unknown> = { ...DEFAULTS };
  for (const [name, value] of Object.entries(stored ?? {})) {
    if (name in merged && fits(merged[name], value)) merged[name] = value;
  }
  return merged as unknown as Settings;
}

function fits(standard: unknown, value: unknown): boolean {
  if (standard === null || value === null) return value === null || typeof value === "number";
  return typeof value === typeof standard;
}

/** From settings to the fields of a request. */

import type { SamplingFields } from "./api";
import type { Conversation } from "./message";
import type { Settings } from "./settings.svelte";

/** The settings, or what an example fixed for its conversation, as both endpoints take them. */
export function samplingFields(
  settings: Settings,
  fixed: Conversation["sampling"],
): SamplingFields {
  const fields: SamplingFields = {
    temperature: fixed?.temperature ?? settings.temperature,
    top_p: settings.topP,
    top_k: settings.topK,
    min_p: settings.minP,
  };
  const maxTokens = fixed?.maxTokens ?? settings.maxTokens;
  if (maxTokens !== null) fields.max_tokens = maxTokens;
  if (settings.seed !== null) fields.seed = settings.seed;
  return fields;
}

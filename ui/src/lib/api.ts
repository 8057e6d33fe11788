/** The server's API as the page uses it. The only file that calls fetch; URLs are relative. */

import { ApiError, detailOf, failureOf } from "./api-error";
import { readEvents } from "./sse";

export interface Model {
  id: string;
  /** Tokens that one request may use, when the server tells. */
  contextLength: number | null;
}

export interface ChatTurn {
  role: "system" | "user" | "assistant";
  content: string;
}

/** Sampling fields as both endpoints take them; a missing field leaves the choice to the server. */
export interface SamplingFields {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  seed?: number;
  max_tokens?: number;
}

export type GenerationRequest = { model: string } & SamplingFields &
  ({ messages: ChatTurn[] } | { prompt: string });

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number } | null;
}

/** Times that the server measured itself; an extension of the OpenAI format. */
export interface Timings {
  predicted_n?: number;
  predicted_per_second?: number;
  prompt_per_second?: number;
  queue_ms?: number;
}

/** One event of a generation: new text, and on the last ones why it ended and what it took. */
export interface Chunk {
  text: string;
  finishReason?: string;
  usage?: Usage;
  timings?: Timings;
}

/** Lists the served models. Throws ApiError. */
export async function listModels(apiKey: string, signal?: AbortSignal): Promise<Model[]> {
  const response = await request("v1/models", apiKey, signal ? { signal } : {});
  const body = (await response.json()) as { data?: ModelCard[] };
  return (body.data ?? []).map(toModel);
}

/**
 * Generates text, as a chat reply or as the continuation of a prompt. Throws ApiError, also with
 * kind "cut" when the stream ends before the generation did; AbortError when `signal` fires.
 */
export async function* generate(
  body: GenerationRequest,
  apiKey: string,
  signal: AbortSignal,
): AsyncGenerator<Chunk> {
  const path = "messages" in body ? "v1/chat/completions" : "v1/completions";
  const response = await request(path, apiKey, {
    method: "POST",
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.body) throw new ApiError({ kind: "cut", detail: "" });
  yield* readChunks(response.body, signal);
}

async function* readChunks(
  body: ReadableStream<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Chunk> {
  let finished = false;
  try {
    for await (const { data } of readEvents(body)) {
      if (data === "[DONE]") return;
      const chunk = toChunk(JSON.parse(data) as RawChunk);
      finished ||= chunk.finishReason !== undefined;
      yield chunk;
    }
  } catch (error) {
    if (signal.aborted || error instanceof ApiError) throw error;
    throw new ApiError({ kind: "cut", detail: "" });
  }
  if (!finished) throw new ApiError({ kind: "cut", detail: "" });
}

interface RawChunk {
  choices?: { delta?: { content?: string | null }; text?: string; finish_reason?: string | null }[];
  usage?: Usage | null;
  timings?: Timings | null;
  error?: unknown;
}

function toChunk(raw: RawChunk): Chunk {
  if (raw.error) throw new ApiError({ kind: "server", detail: detailOf(raw) });
  const choice = raw.choices?.[0];
  const chunk: Chunk = { text: choice?.delta?.content ?? choice?.text ?? "" };
  if (choice?.finish_reason) chunk.finishReason = choice.finish_reason;
  if (raw.usage) chunk.usage = raw.usage;
  if (raw.timings) chunk.timings = raw.timings;
  return chunk;
}

interface ModelCard {
  id: string;
  meta?: { context_length?: number } | null;
}

function toModel(card: ModelCard): Model {
  return { id: card.id, contextLength: card.meta?.context_length ?? null };
}

async function request(path: string, apiKey: string, init: RequestInit): Promise<Response> {
  const headers: Record<string, string> = init.body ? { "content-type": "application/json" } : {};
  if (apiKey) headers.authorization = `Bearer ${apiKey}`;
  const response = await fetch(path, { ...init, headers }).catch((error: unknown) => {
    if (init.signal?.aborted) throw error;
    throw new ApiError({ kind: "unreachable", detail: "" });
  });
  if (!response.ok) throw new ApiError(await failureOf(response));
  return response;
}

/** How fast a reply arrives: a live estimate from events, then the server's own figures. */

import type { Chunk, Timings, Usage } from "./api";
import type { Stats } from "./message";

/** Times come from `now`, in milliseconds, so that a test can set the clock. */
export class Meter {
  #startedAt: number;
  #firstAt: number | null = null;
  #lastAt = 0;
  #events = 0;
  #usage: Usage | undefined;
  #timings: Timings | undefined;

  constructor(private readonly now: () => number = () => performance.now()) {
    this.#startedAt = now();
  }

  count(chunk: Chunk): void {
    this.#usage = chunk.usage ?? this.#usage;
    this.#timings = chunk.timings ?? this.#timings;
    if (!chunk.text) return;
    this.#lastAt = this.now();
    this.#firstAt ??= this.#lastAt;
    this.#events += 1;
  }

  /** The figures so far. One event is about one token; the exact count comes with the last chunk. */
  stats(): Stats {
    const tokens = this.#usage?.completion_tokens ?? this.#timings?.predicted_n ?? this.#events;
    return {
      promptTokens: this.#usage?.prompt_tokens ?? null,
      cachedTokens: this.#usage?.prompt_tokens_details?.cached_tokens ?? null,
      completionTokens: tokens,
      tokensPerSecond: this.#timings?.predicted_per_second || this.#rate(tokens),
      firstTokenSeconds: this.#firstAt === null ? null : (this.#firstAt - this.#startedAt) / 1000,
    };
  }

  // The first token ends the prompt's time, so the rate is that of the tokens after it.
  #rate(tokens: number): number | null {
    const seconds = (this.#lastAt - (this.#firstAt ?? this.#lastAt)) / 1000;
    return tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null;
  }
}

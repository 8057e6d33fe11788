/** Server-sent events read from a fetch body (WHATWG HTML §9.2.6); knows nothing of what they carry. */

export interface ServerEvent {
  /** Name of the event; "message" unless the server named it. */
  event: string;
  data: string;
}

/** Turns text, cut anywhere, into events. Comments and blocks without data give none. */
export class EventParser {
  #rest = "";
  #event = "";
  #data: string[] = [];

  push(text: string): ServerEvent[] {
    this.#rest += text;
    const events: ServerEvent[] = [];
    for (let line = this.#takeLine(); line !== undefined; line = this.#takeLine()) {
      const event = this.#readLine(line);
      if (event) events.push(event);
    }
    return events;
  }

  #takeLine(): string | undefined {
    const end = this.#rest.search(/[\r\n]/);
    if (end < 0) return undefined;
    const isCarriageReturn = this.#rest[end] === "\r";
    // The line feed of a CRLF may come with the next chunk.
    if (isCarriageReturn && end + 1 === this.#rest.length) return undefined;
    const next = isCarriageReturn && this.#rest[end + 1] === "\n" ? end + 2 : end + 1;
    const line = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(next);
    return line;
  }

  #readLine(line: string): ServerEvent | undefined {
    if (line === "") return this.#dispatch();
    const [, field, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === "data") this.#data.push(value ?? "");
    else if (field === "event") this.#event = value ?? "";
    return undefined;
  }

  #dispatch(): ServerEvent | undefined {
    const event = this.#data.length
      ? { event: this.#event || "message", data: this.#data.join("\n") }
      : undefined;
    this.#event = "";
    this.#data = [];
    return event;
  }
}

/** Yields the events of a response body; a character split over chunks is put together again. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    // The consumer may have left early: the server must learn that nobody reads any more.
    await reader.cancel().catch(() => undefined);
  }
}

import { describe, expect, it } from "vitest";

import { EventParser, readEvents, type ServerEvent } from "../src/lib/sse";
import { collect } from "./collect";

function parse(...pieces: string[]): ServerEvent[] {
  const parser = new EventParser();
  return pieces.flatMap((piece) => parser.push(piece));
}

function bodyOf(bytes: Uint8Array, size: number): ReadableStream<Uint8Array> {
  const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
    bytes.slice(index * size, (index + 1) * size),
  );
  return new ReadableStream({
    pull(controller) {
      const piece = pieces.shift();
      if (piece) controller.enqueue(piece);
      else controller.close();
    },
  });
}

describe("EventParser", () => {
  it.each(["\n", "\r\n", "\r"])("ends lines at %j", (end) => {
    // Text after the event: a lone CR could otherwise still be the first half of a CRLF.
    const events = parse(["data: a", "", "data: [DONE]", "", ":"].join(end));
    expect(events.map(({ data }) => data)).toEqual(["a", "[DONE]"]);
  });

  it("gives the same events wherever the text is cut", () => {
    const text = 'event: error\r\ndata: {"a":\r\ndata: 1}\r\n\r\n: ping\r\n\r\ndata:x\r\n\r\n';
    const whole = parse(text);
    expect(whole).toEqual([
      { event: "error", data: '{"a":\n1}' },
      { event: "message", data: "x" },
    ]);
    for (let cut = 1; cut < text.length; cut++) {
      expect(parse(text.slice(0, cut), text.slice(cut))).toEqual(whole);
    }
    expect(parse(...text)).toEqual(whole);
  });

  it("takes off one blank after the colon and no more", () => {
    expect(parse("data:  two\n\n")).toEqual([{ event: "message", data: " two" }]);
  });

  it("gives nothing for comments, ids, and blocks without data", () => {
    expect(parse(": ping\n\nid: 7\n\nretry: 10\n\nevent: x\n\n")).toEqual([]);
  });

  it("forgets the event's name after the event", () => {
    expect(parse("event: a\ndata: 1\n\ndata: 2\n\n")[1]?.event).toBe("message");
  });

  it("does not deliver an event that was not ended", () => {
    expect(parse("data: cut of")).toEqual([]);
  });
});

describe("readEvents", () => {
  it("joins characters that were split over chunks", async () => {
    const bytes = new TextEncoder().encode("data: Füchsin 🦊 跳\n\n");
    for (let size = 1; size <= 5; size++) {
      const events = await collect(readEvents(bodyOf(bytes, size)));
      expect(events).toEqual([{ event: "message", data: "Füchsin 🦊 跳" }]);
    }
  });

  it("cancels the body when the reader leaves early", async () => {
    let cancelled = false;
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new TextEncoder().encode("data: 1\n\n")),
      cancel: () => void (cancelled = true),
    });
    for await (const event of readEvents(body)) {
      expect(event.data).toBe("1");
      break;
    }
    expect(cancelled).toBe(true);
  });
});

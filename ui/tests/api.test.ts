import { afterEach, describe, expect, it, vi } from "vitest";

import { ApiError } from "../src/lib/api-error";
import { generate, listModels, type Chunk } from "../src/lib/api";
import { collect } from "./collect";

const fetchMock = vi.fn<typeof fetch>();
vi.stubGlobal("fetch", fetchMock);
afterEach(() => fetchMock.mockReset());

const CHAT = { model: "m", messages: [{ role: "user" as const, content: "Hi" }] };

function answerWith(events: unknown[]): void {
  const text = events
    .map((event) => `data: ${typeof event === "string" ? event : JSON.stringify(event)}\n\n`)
    .join("");
  fetchMock.mockResolvedValue(new Response(text));
}

function chunks(body: Parameters<typeof generate>[0] = CHAT): Promise<Chunk[]> {
  return collect(generate(body, "", new AbortController().signal));
}

async function failureFrom(promise: Promise<unknown>): Promise<ApiError["failure"]> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ApiError);
  return (error as ApiError).failure;
}

describe("generate", () => {
  it("reads chat deltas, the reason, the usage and the timings", async () => {
    const usage = { prompt_tokens: 3, completion_tokens: 2 };
    answerWith([
      { choices: [{ delta: { role: "assistant", content: "" } }], usage: null },
      { choices: [{ delta: { content: "Hel" } }] },
      { choices: [{ delta: { content: "lo" }, finish_reason: null }] },
      { choices: [{ delta: {}, finish_reason: "stop" }] },
      { choices: [], usage, timings: { predicted_per_second: 40 } },
      "[DONE]",
    ]);
    const received = await chunks();
    expect(received.map(({ text }) => text).join("")).toBe("Hello");
    expect(received.at(-2)?.finishReason).toBe("stop");
    expect(received.at(-1)).toEqual({ text: "", usage, timings: { predicted_per_second: 40 } });
  });

  it("asks for a stream with usage, below the page's own address", async () => {
    answerWith([{ choices: [{ text: " over", finish_reason: "length" }] }, "[DONE]"]);
    const received = await chunks({ model: "m", prompt: "The fox", temperature: 0 });
    expect(received).toEqual([{ text: " over", finishReason: "length" }]);
    const [path, init] = fetchMock.mock.calls[0] ?? [];
    expect(path).toBe("v1/completions");
    expect(JSON.parse(init?.body as string)).toEqual({
      model: "m",
      prompt: "The fox",
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true },
    });
  });

  it("keeps what came before an error in the stream", async () => {
    answerWith([{ choices: [{ delta: { content: "part" } }] }, { error: { message: "boom" } }]);
    const texts: string[] = [];
    const reading = (async () => {
      for await (const { text } of generate(CHAT, "", new AbortController().signal)) texts.push(text);
    })();
    expect(await failureFrom(reading)).toEqual({ kind: "server", detail: "boom" });
    expect(texts).toEqual(["part"]);
  });

  it.each([
    ["ends without a reason", [{ choices: [{ delta: { content: "a" } }] }]],
    ["ends within an event", ['{"choices": [{"delta"']],
  ])("calls a stream cut that %s", async (_, events) => {
    answerWith(events);
    expect((await failureFrom(chunks())).kind).toBe("cut");
  });

  it("passes an abort on as it is", async () => {
    const controller = new AbortController();
    fetchMock.mockImplementation(() => {
      controller.abort();
      return Promise.reject(new DOMException("aborted", "AbortError"));
    });
    const reading = collect(generate(CHAT, "", controller.signal));
    await expect(reading).rejects.toHaveProperty("name", "AbortError");
  });
});

describe("failures", () => {
  it.each([
    [401, null, "unauthorized"],
    [403, null, "unauthorized"],
    [400, "context_length_exceeded", "too_long"],
    [400, null, "invalid"],
    [422, null, "invalid"],
    [429, "queue_full", "busy"],
    [503, null, "loading"],
    [502, null, "unreachable"],
    [500, null, "server"],
  ])("tells %i %s as %s", async (status, code, kind) => {
    const body = JSON.stringify({ error: { message: "why", code } });
    fetchMock.mockImplementation(() => Promise.resolve(new Response(body, { status })));
    expect(await failureFrom(chunks())).toEqual({ kind, detail: "why" });
  });

  it("reads Retry-After and rounds it up", async () => {
    const init = { status: 429, headers: { "retry-after": "2.2" } };
    fetchMock.mockResolvedValue(new Response('{"error":{"message":"full"}}', init));
    expect(await failureFrom(chunks())).toEqual({ kind: "busy", detail: "full", retryAfter: 3 });
  });

  it("does not show a proxy's page", async () => {
    fetchMock.mockResolvedValue(new Response("<html>Bad gateway</html>", { status: 502 }));
    expect(await failureFrom(chunks())).toEqual({ kind: "unreachable", detail: "HTTP 502" });
  });

  it("tells a server that does not answer", async () => {
    fetchMock.mockRejectedValue(new TypeError("Failed to fetch"));
    expect(await failureFrom(chunks())).toEqual({ kind: "unreachable", detail: "" });
  });
});

describe("listModels", () => {
  it("sends the key and reads the context's length", async () => {
    const data = [{ id: "a", meta: { context_length: 4096 } }, { id: "b" }];
    fetchMock.mockResolvedValue(Response.json({ data }));
    expect(await listModels("secret")).toEqual([
      { id: "a", contextLength: 4096 },
      { id: "b", contextLength: null },
    ]);
    const headers = fetchMock.mock.calls[0]?.[1]?.headers as Record<string, string>;
    expect(headers.authorization).toBe("Bearer secret");
  });
});

/** One conversation on the page: its messages, its draft, and the reply that is being generated. */

import { SvelteMap } from "svelte/reactivity";

import { ApiError, type Failure } from "./api-error";
import { generate, type ChatTurn, type GenerationRequest } from "./api";
import { readDraft, writeDraft } from "./drafts";
import { newMessage, titleOf, type Conversation, type Message, type Stats } from "./message";
import { Meter } from "./meter";
import { Painter } from "./painter";
import { samplingFields } from "./sampling";
import { connect, server } from "./server.svelte";
import { settings } from "./settings.svelte";
import { loadMessages, save } from "./store";
import { newestLeaf, pathTo, siblingsOf } from "./tree";

const CHECKPOINT_MS = 1000;

/** What a chat tells the page that holds it. */
export interface ChatEvents {
  /** The conversation was written, or changed its title or time. */
  saved(chat: Chat): void;
  /** Storage refused; the conversation goes on in memory. */
  notSaved(error: unknown): void;
}

export class Chat {
  readonly conversation: Conversation;
  readonly messages = new SvelteMap<string, Message>();
  /** The branch on view, first message first. */
  readonly path: Message[] = $derived.by(() => pathTo(this.messages, this.conversation.leafId));
  /** Figures of the running reply; null while none runs. */
  live: Stats | null = $state(null);
  #draft = $state("");
  #controller: AbortController | null = $state(null);
  #discarded = false;

  constructor(
    conversation: Conversation,
    private readonly events: ChatEvents,
  ) {
    this.conversation = $state(conversation);
    this.#draft = readDraft(conversation.id);
  }

  get isRunning(): boolean {
    return this.#controller !== null;
  }

  get isEmpty(): boolean {
    return this.messages.size === 0;
  }

  get draft(): string {
    return this.#draft;
  }

  set draft(text: string) {
    this.#draft = text;
    writeDraft(this.conversation.id, text);
  }

  /** Reads the messages from the store. A reply that was running when the page closed has ended. */
  async load(): Promise<void> {
    for (const message of await loadMessages(this.conversation.id)) {
      if (message.status === "streaming") message.status = "interrupted";
      this.#add(message);
    }
  }

  /** Adds what the person wrote at the end of the branch, and generates the reply. */
  async send(text: string): Promise<void> {
    if (this.isRunning) return;
    const last = this.path.at(-1);
    const question = this.#add(newMessage(last ?? this.conversation, "user", text));
    this.conversation.title ||= titleOf(text);
    this.draft = "";
    await this.#reply(question);
  }

  /** Generates another reply to the same message; the earlier one stays as a branch. */
  async regenerate(reply: Message): Promise<void> {
    const question = this.messages.get(reply.parentId ?? "");
    if (!question || this.isRunning) return;
    const hasNothing = reply.failure && !reply.text;
    if (hasNothing) this.#reset(reply);
    await this.#reply(question, hasNothing ? reply : undefined);
  }

  stop(): void {
    this.#controller?.abort();
  }

  /** Ends what runs and stores nothing any more: the conversation is being deleted. */
  discard(): void {
    this.#discarded = true;
    this.stop();
  }

  siblings(message: Message): Message[] {
    return siblingsOf(this.messages, message);
  }

  /** Shows the branch that `message` is part of. */
  show(message: Message): void {
    this.conversation.leafId = newestLeaf(this.messages, message.id);
    void this.#save();
  }

  #add(message: Message): Message {
    const state = $state(message);
    this.messages.set(state.id, state);
    return state;
  }

  // A reply that failed before its first word is no version worth keeping: it is used again.
  #reset(reply: Message): void {
    reply.status = "streaming";
    delete reply.failure;
    delete reply.stats;
  }

  async #reply(question: Message, reply = this.#add(newMessage(question, "assistant"))): Promise<void> {
    const request = this.#request(question);
    this.conversation.leafId = reply.id;
    this.conversation.updatedAt = Date.now();
    this.#controller = new AbortController();
    const checkpoint = setInterval(() => void this.#save(reply), CHECKPOINT_MS);
    void this.#save(question, reply);
    try {
      await this.#stream(request, reply, this.#controller.signal);
    } finally {
      clearInterval(checkpoint);
      this.#controller = null;
      this.live = null;
      void this.#save(reply);
    }
  }

  async #stream(request: GenerationRequest, reply: Message, signal: AbortSignal): Promise<void> {
    const meter = new Meter();
    const painter = new Painter((text) => {
      reply.text += text;
      this.live = meter.stats();
    });
    try {
      for await (const chunk of generate(request, settings.apiKey, signal)) {
        meter.count(chunk);
        painter.add(chunk.text);
        if (chunk.finishReason) reply.finishReason = chunk.finishReason;
      }
      reply.status = "done";
    } catch (error) {
      this.#fail(reply, signal.aborted ? null : failureFrom(error));
    } finally {
      painter.end();
      reply.stats = meter.stats();
    }
  }

  #fail(reply: Message, failure: Failure | null): void {
    reply.status = failure ? "failed" : "stopped";
    if (!failure) return;
    reply.failure = failure;
    if (["unreachable", "cut", "loading"].includes(failure.kind)) void connect();
    if (failure.kind === "unauthorized") server.status = "unauthorized";
  }

  #request(question: Message): GenerationRequest {
    const model = server.model?.id ?? "default";
    const fields = { model, ...samplingFields(settings, this.conversation.sampling) };
    if (this.conversation.mode === "complete") return { ...fields, prompt: question.text };
    return { ...fields, messages: this.#turns(question) };
  }

  #turns(question: Message): ChatTurn[] {
    const turns: ChatTurn[] = pathTo(this.messages, question.id)
      .filter((message) => message.text)
      .map(({ role, text }) => ({ role, content: text }));
    const system = settings.systemPrompt.trim();
    return system ? [{ role: "system", content: system }, ...turns] : turns;
  }

  async #save(...messages: Message[]): Promise<void> {
    if (this.#discarded) return;
    try {
      const plain = messages.map((message) => $state.snapshot(message) as Message);
      await save($state.snapshot(this.conversation) as Conversation, plain);
      this.events.saved(this);
    } catch (error) {
      this.events.notSaved(error);
    }
  }
}

function failureFrom(error: unknown): Failure {
  if (error instanceof ApiError) return error.failure;
  return { kind: "server", detail: error instanceof Error ? error.message : String(error) };
}

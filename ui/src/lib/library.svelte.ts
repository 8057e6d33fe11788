/** All conversations: the list, the one on view, and those that still generate in the background. */

import { Chat, type ChatEvents } from "./chat.svelte";
import { newConversation, type Conversation, type Mode } from "./message";
import { goTo } from "./route.svelte";
import { listConversations, remove } from "./store";

class Library implements ChatEvents {
  // Chats that were opened: one that generates must go on while another is on view.
  readonly #open = new Map<string, Chat>();
  /** Stored conversations, the one last used first. */
  list: Conversation[] = $state([]);
  current: Chat = $state(this.#create("chat"));
  /** Set once storage has refused a write: what is said now will not survive the tab. */
  storageFailed = $state(false);

  /** Reads the list from the store. */
  async load(): Promise<void> {
    try {
      this.list = await listConversations();
    } catch (error) {
      this.notSaved(error);
    }
  }

  /** Shows a conversation; a new one when `id` is null or unknown. */
  async show(id: string | null): Promise<void> {
    if (id === this.current.conversation.id || (id === null && this.current.isEmpty)) return;
    const chat = id === null ? null : (this.#open.get(id) ?? (await this.#read(id)));
    if (chat) this.current = chat;
    else this.start("chat");
  }

  /** Begins a conversation, which is stored with its first message. */
  start(mode: Mode, sampling?: Conversation["sampling"]): Chat {
    const draft = this.current.isEmpty ? this.current.draft : "";
    if (this.current.isEmpty) this.#open.delete(this.current.conversation.id);
    this.current = this.#create(mode, sampling);
    this.current.draft = draft;
    goTo(null);
    return this.current;
  }

  /** Changes how text is sent. A conversation keeps its mode, so one with messages makes way. */
  setMode(mode: Mode): void {
    if (mode === this.current.conversation.mode) return;
    const { draft } = this.current;
    this.current.draft = "";
    this.start(mode).draft = draft;
  }

  async delete(conversation: Conversation): Promise<void> {
    this.#open.get(conversation.id)?.discard();
    this.#open.delete(conversation.id);
    await remove(conversation.id).catch((error: unknown) => this.notSaved(error));
    this.list = this.list.filter(({ id }) => id !== conversation.id);
    if (this.current.conversation.id === conversation.id) this.start("chat");
  }

  isRunning(id: string): boolean {
    return this.#open.get(id)?.isRunning ?? false;
  }

  saved(chat: Chat): void {
    const { id } = chat.conversation;
    if (!this.#open.has(id)) return;
    const others = this.list.filter((conversation) => conversation.id !== id);
    this.list = [chat.conversation, ...others].sort((a, b) => b.updatedAt - a.updatedAt);
  }

  notSaved(error: unknown): void {
    console.warn("avllm: the conversation could not be stored", error);
    this.storageFailed = true;
  }

  #create(mode: Mode, sampling?: Conversation["sampling"]): Chat {
    const conversation = newConversation(mode);
    if (sampling) conversation.sampling = sampling;
    return this.#keep(conversation);
  }

  async #read(id: string): Promise<Chat | null> {
    const conversation = this.list.find((item) => item.id === id);
    if (!conversation) return null;
    const chat = this.#keep(conversation);
    await chat.load();
    return chat;
  }

  #keep(conversation: Conversation): Chat {
    const chat = new Chat(conversation, this);
    this.#open.set(conversation.id, chat);
    return chat;
  }
}

export const library = new Library();

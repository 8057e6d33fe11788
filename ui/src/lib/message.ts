/** A message and a conversation, in the form in which they are stored. */

import type { Failure } from "./api-error";

export type Mode = "chat" | "complete";

/** "streaming" on disk means that the page was closed meanwhile; it is then read as "interrupted". */
export type MessageStatus = "streaming" | "done" | "stopped" | "failed" | "interrupted";

/** What a reply took; token counts are the server's, times are in seconds. */
export interface Stats {
  promptTokens: number | null;
  cachedTokens: number | null;
  completionTokens: number;
  tokensPerSecond: number | null;
  firstTokenSeconds: number | null;
}

export interface Message {
  id: string;
  conversationId: string;
  /** The message that this one answers or follows; null for the first. Siblings are branches. */
  parentId: string | null;
  role: "user" | "assistant";
  text: string;
  /** Milliseconds since 1970; orders siblings. */
  createdAt: number;
  status: MessageStatus;
  finishReason?: string;
  failure?: Failure;
  stats?: Stats;
}

export interface Conversation {
  id: string;
  title: string;
  /** "complete" sends each prompt by itself, as text to be continued. */
  mode: Mode;
  /** The last message of the branch on view; null while there is none. */
  leafId: string | null;
  updatedAt: number;
  /** Sampling that an example asked for, instead of what the settings say. */
  sampling?: { temperature: number; maxTokens: number };
}

const TITLE_LENGTH = 60;

export function newConversation(mode: Mode): Conversation {
  return { id: crypto.randomUUID?.() ?? randomId(), title: "", mode, leafId: null, updatedAt: Date.now() };
}

export function newMessage(parent: Message | Conversation, role: Message["role"], text = ""): Message {
  const isMessage = "parentId" in parent;
  return {
    id: crypto.randomUUID?.() ?? randomId(),
    conversationId: isMessage ? parent.conversationId : parent.id,
    parentId: isMessage ? parent.id : null,
    role,
    text,
    createdAt: Date.now(),
    status: role === "user" ? "done" : "streaming",
  };
}

/** The first line of a text, cut at a word, to name a conversation. */
export function titleOf(text: string): string {
  const line = text.trim().split("\n", 1)[0] ?? "";
  if (line.length <= TITLE_LENGTH) return line;
  return `${line.slice(0, TITLE_LENGTH).replace(/\s+\S*$/, "")}…`;
}

// randomUUID exists in secure contexts only, and a page served to a LAN over HTTP is none.
function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

/** Conversations in the browser's IndexedDB. Errors (a full disk, blocked storage) are the caller's. */

import { openDB, type DBSchema, type IDBPDatabase } from "idb";

import type { Conversation, Message } from "./message";

const NAME = "avllm";
const VERSION = 1;

interface Schema extends DBSchema {
  conversations: { key: string; value: Conversation };
  messages: { key: string; value: Message; indexes: { conversation: string } };
}

let database: Promise<IDBPDatabase<Schema>> | undefined;

function open(): Promise<IDBPDatabase<Schema>> {
  database ??= openDB<Schema>(NAME, VERSION, {
    upgrade(db) {
      db.createObjectStore("conversations", { keyPath: "id" });
      const messages = db.createObjectStore("messages", { keyPath: "id" });
      messages.createIndex("conversation", "conversationId");
    },
    // A newer page in another tab wants to upgrade: step aside, reopen at the next call.
    blocking: (_version, _blocked, event) => {
      (event.target as IDBDatabase).close();
      database = undefined;
    },
    terminated: () => (database = undefined),
  });
  database.catch(() => (database = undefined));
  return database;
}

/** All conversations, the one last used first. */
export async function listConversations(): Promise<Conversation[]> {
  const all = await (await open()).getAll("conversations");
  return all.sort((a, b) => b.updatedAt - a.updatedAt);
}

/** Every message of a conversation, in no order; see tree.ts. */
export async function loadMessages(conversationId: string): Promise<Message[]> {
  return (await open()).getAllFromIndex("messages", "conversation", conversationId);
}

/** Writes a conversation and messages of it, all or none. */
export async function save(conversation: Conversation, messages: Message[] = []): Promise<void> {
  const transaction = (await open()).transaction(["conversations", "messages"], "readwrite");
  const writes: Promise<unknown>[] = [transaction.done];
  try {
    writes.push(transaction.objectStore("conversations").put(conversation));
    for (const message of messages) writes.push(transaction.objectStore("messages").put(message));
  } catch (error) {
    // What cannot be cloned is refused at once, and does not end the transaction by itself.
    transaction.abort();
    await Promise.allSettled(writes);
    throw error;
  }
  await Promise.all(writes);
}

/** Removes a conversation with its messages. */
export async function remove(conversationId: string): Promise<void> {
  const transaction = (await open()).transaction(["conversations", "messages"], "readwrite");
  const messages = transaction.objectStore("messages");
  const keys = await messages.index("conversation").getAllKeys(conversationId);
  await Promise.all([
    transaction.objectStore("conversations").delete(conversationId),
    ...keys.map((key) => messages.delete(key)),
    transaction.done,
  ]);
}

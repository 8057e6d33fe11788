/** Pure operations on the tree of a conversation's messages, which are joined by `parentId`. */

import type { Message } from "./message";

export type MessageTree = ReadonlyMap<string, Message>;

/** The branch that ends in `leafId`, first message first; empty when there is no such message. */
export function pathTo(tree: MessageTree, leafId: string | null): Message[] {
  const path: Message[] = [];
  const seen = new Set<string>();
  let message = leafId === null ? undefined : tree.get(leafId);
  // A damaged store could hold a circle.
  while (message && !seen.has(message.id)) {
    seen.add(message.id);
    path.unshift(message);
    message = message.parentId === null ? undefined : tree.get(message.parentId);
  }
  return path;
}

/** The messages that follow `parentId` (null: that begin the conversation), oldest first. */
export function childrenOf(tree: MessageTree, parentId: string | null): Message[] {
  return [...tree.values()]
    .filter((message) => message.parentId === parentId)
    .sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1));
}

/** The message and its alternatives, oldest first. */
export function siblingsOf(tree: MessageTree, message: Message): Message[] {
  return childrenOf(tree, message.parentId);
}

/** Where the newest branch below `id` ends; `id` itself when nothing follows it. */
export function newestLeaf(tree: MessageTree, id: string): string {
  const child = childrenOf(tree, id).at(-1);
  return child ? newestLeaf(tree, child.id) : id;
}

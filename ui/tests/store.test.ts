import { describe, expect, it } from "vitest";

import { newConversation, newMessage } from "../src/lib/message";
import { listConversations, loadMessages, remove, save } from "../src/lib/store";

describe("store", () => {
  it("gives back conversations, last used first, with their branches", async () => {
    const older = { ...newConversation("chat"), updatedAt: 1 };
    const newer = { ...newConversation("complete"), updatedAt: 2 };
    const question = newMessage(older, "user", "Hi");
    const replies = [newMessage(question, "assistant", "A"), newMessage(question, "assistant", "B")];
    await save(older, [question, ...replies]);
    await save(newer);

    expect((await listConversations()).map(({ id }) => id)).toEqual([newer.id, older.id]);
    const stored = await loadMessages(older.id);
    expect(stored.map(({ text }) => text).sort()).toEqual(["A", "B", "Hi"]);
    expect(stored.filter(({ parentId }) => parentId === question.id)).toHaveLength(2);
    expect(await loadMessages(newer.id)).toEqual([]);
  });

  it("removes a conversation with its messages and no others", async () => {
    const gone = newConversation("chat");
    const kept = newConversation("chat");
    await save(gone, [newMessage(gone, "user", "x")]);
    await save(kept, [newMessage(kept, "user", "y")]);
    await remove(gone.id);

    expect((await listConversations()).map(({ id }) => id)).not.toContain(gone.id);
    expect(await loadMessages(gone.id)).toEqual([]);
    expect(await loadMessages(kept.id)).toHaveLength(1);
  });

  it("writes all or nothing", async () => {
    const conversation = newConversation("chat");
    const unclonable = { ...newMessage(conversation, "user", "x"), text: (() => "x") as never };
    await expect(save(conversation, [unclonable])).rejects.toThrow();
    expect((await listConversations()).map(({ id }) => id)).not.toContain(conversation.id);
  });
});

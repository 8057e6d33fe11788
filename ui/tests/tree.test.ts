import { describe, expect, it } from "vitest";

import type { Message } from "../src/lib/message";
import { childrenOf, newestLeaf, pathTo, siblingsOf } from "../src/lib/tree";

function message(id: string, parentId: string | null, createdAt: number): Message {
  return { id, parentId, createdAt, conversationId: "c", role: "user", text: id, status: "done" };
}

// root ─ a ─ a1
//      └ b ─ b1 ─ b2
const TREE = new Map(
  [
    message("b2", "b1", 6),
    message("root", null, 1),
    message("a", "root", 2),
    message("a1", "a", 3),
    message("b", "root", 4),
    message("b1", "b", 5),
  ].map((item) => [item.id, item]),
);
const ids = (messages: Message[]): string => messages.map(({ id }) => id).join(" ");

describe("tree", () => {
  it("finds the branch to a leaf", () => {
    expect(ids(pathTo(TREE, "b2"))).toBe("root b b1 b2");
    expect(ids(pathTo(TREE, "a"))).toBe("root a");
  });

  it("gives an empty branch where there is no leaf", () => {
    expect(pathTo(TREE, null)).toEqual([]);
    expect(pathTo(TREE, "gone")).toEqual([]);
  });

  it("ends on a circle instead of running for ever", () => {
    const circle = new Map([
      ["x", message("x", "y", 1)],
      ["y", message("y", "x", 2)],
    ]);
    expect(ids(pathTo(circle, "x"))).toBe("y x");
  });

  it("orders children and siblings by age, then by id", () => {
    expect(ids(childrenOf(TREE, "root"))).toBe("a b");
    expect(ids(siblingsOf(TREE, message("b", "root", 4)))).toBe("a b");
    const twins = new Map([
      ["z", message("z", null, 1)],
      ["y", message("y", null, 1)],
    ]);
    expect(ids(childrenOf(twins, null))).toBe("y z");
  });

  it("goes to the newest branch below a message", () => {
    expect(newestLeaf(TREE, "root")).toBe("b2");
    expect(newestLeaf(TREE, "a")).toBe("a1");
    expect(newestLeaf(TREE, "b2")).toBe("b2");
  });
});

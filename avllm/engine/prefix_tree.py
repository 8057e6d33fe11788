"""PrefixTree: which token runs have cells in the KV cache, as a radix tree over token ids.

Knows tokens and counts, nothing of llama.cpp. A node is a run of tokens; the cells of the run are
owned by every sequence id whose path goes through it. A node without any is removed, and one
where no path ends or branches is joined with its child.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avllm.engine.slot import Slot


class Node:
    """A run of tokens below its parent.

    Attributes:
        tokens: the run, int32; empty only in a root.
        start: position of its first token.
        children: first token of each child -> child.
        slots: slots whose path ends in this node (a dict for its order).
        num_paths: slots whose path goes through or ends in this node.
        num_active: those of them that belong to running sequences.
    """

    __slots__ = ("children", "num_active", "num_paths", "parent", "slots", "start", "tokens")

    def __init__(self, parent: Node | None, tokens: array[int], start: int) -> None:
        self.parent = parent
        self.tokens = tokens
        self.start = start
        self.children: dict[int, Node] = {}
        self.slots: dict[Slot, None] = {}
        self.num_paths = 0
        self.num_active = 0

    @property
    def end(self) -> int:
        """Position after its last token."""
        return self.start + len(self.tokens)

    def path(self) -> Iterator[Node]:
        """Yield this node and its ancestors, without the root."""
        node: Node | None = self
        while node is not None and node.parent is not None:
            yield node
            node = node.parent

    def at(self, position: int) -> Node:
        """Return the node of its path in which the first ``position`` tokens end."""
        node = self
        while node.parent is not None and node.start >= position:
            node = node.parent
        return node

    def idle_cells(self, end: int) -> int:
        """Return how many cells of its path, up to position ``end``, only cached slots hold."""
        return sum(min(node.end, end) - node.start for node in self.path() if not node.num_active)

    def any_slot(self) -> Slot:
        """Return a slot whose path goes through this node."""
        node = self
        while not node.slots:
            node = next(iter(node.children.values()))
        return next(iter(node.slots))


class PrefixTree:
    """One radix tree per cache salt; counts the cells that its nodes stand for.

    Owned by the engine thread.

    Attributes:
        num_cells: tokens over all nodes: each is one cell.
        num_idle: those of nodes that no running sequence uses.
    """

    def __init__(self) -> None:
        self._roots: dict[str, Node] = {}
        self.num_cells = 0
        self.num_idle = 0

    def root(self, salt: str) -> Node:
        """Return the root for ``salt``, making it when it is new."""
        root = self._roots.get(salt)
        if root is None:
            root = self._roots[salt] = Node(None, array("i"), 0)
        return root

    def match(self, tokens: array[int], salt: str) -> tuple[Node | None, int]:
        """Return the deepest node on the path of ``tokens`` and how many tokens are matched.

        The match may end inside the node's run. (None, 0) when nothing is known for ``salt``.
        """
        root = self._roots.get(salt)
        return (None, 0) if root is None else self.descend(root, tokens)

    def descend(self, node: Node, tokens: array[int]) -> tuple[Node, int]:
        """Follow ``tokens`` downwards from the end of ``node``; the same answer as ``match``."""
        position = 0
        while position < len(tokens):
            child = node.children.get(tokens[position])
            if child is None:
                break
            common = common_prefix(child.tokens, 0, tokens, position)
            node, position = child, position + common
            if common < len(child.tokens):
                break
        return node, position

    def split(self, node: Node, position: int) -> Node:
        """Cut ``node`` so that a node ends at ``position``, and return that upper one."""
        if position == node.end or node.parent is None:
            return node
        cut = position - node.start
        upper = Node(node.parent, node.tokens[:cut], node.start)
        upper.num_paths, upper.num_active = node.num_paths, node.num_active
        upper.children[node.tokens[cut]] = node
        node.parent.children[upper.tokens[0]] = upper
        node.parent, node.tokens, node.start = upper, node.tokens[cut:], position
        return upper

    def append(self, slot: Slot, tokens: array[int]) -> None:
        """Lengthen the path of ``slot`` by a run that no child of its node begins with."""
        node = slot.node
        self.num_cells += len(tokens)
        if not slot.is_active:
            self.num_idle += len(tokens)
        if node.parent is not None and node.num_paths == 1:
            node.tokens = node.tokens + tokens  # nobody else ends here: no new node needed
            return
        child = Node(node, tokens, node.end)
        child.num_paths = 1
        child.num_active = int(slot.is_active)
        node.children[tokens[0]] = child
        del node.slots[slot]
        child.slots[slot] = None
        slot.node = child

    def enter(self, node: Node, slot: Slot) -> None:
        """Let the path of ``slot`` end in ``node``."""
        self._count(node, slot)
        node.slots[slot] = None
        slot.node = node

    def move(self, slot: Slot, node: Node) -> None:
        """Let the path of ``slot`` end in ``node`` instead of where it ends now."""
        old = slot.node
        del old.slots[slot]
        self.enter(node, slot)  # before the old path is let go: what they share stays
        self._uncount(old, slot)

    def leave(self, slot: Slot) -> None:
        """Undo ``enter``; nodes that nobody holds any more are removed with their cells."""
        del slot.node.slots[slot]
        self._uncount(slot.node, slot)
        slot.node = Node(None, array("i"), 0)
        root = self._roots.get(slot.salt)
        if root is not None and not root.children and not root.slots:
            del self._roots[slot.salt]

    def set_active(self, slot: Slot, active: bool) -> None:
        """Change whether ``slot`` belongs to a running sequence."""
        if slot.is_active == active:
            return
        slot.is_active = active
        for step in slot.node.path():
            self._activate(step, 1 if active else -1)

    def trim(self, node: Node, count: int) -> None:
        """Drop the last ``count`` tokens, not all, of a leaf that one idle slot alone holds."""
        node.tokens = node.tokens[:-count]
        self.num_cells -= count
        self.num_idle -= count

    def nodes(self) -> Iterator[Node]:
        """Yield every node but the roots (for checks and views)."""
        pending = list(self._roots.values())
        while pending:
            node = pending.pop()
            pending.extend(node.children.values())
            if node.parent is not None:
                yield node

    def _count(self, node: Node, slot: Slot) -> None:
        for step in node.path():
            step.num_paths += 1
            if slot.is_active:
                self._activate(step, 1)

    def _uncount(self, node: Node, slot: Slot) -> None:
        for step in node.path():
            step.num_paths -= 1
            if slot.is_active:
                self._activate(step, -1)
            if step.num_paths == 0:
                self.num_cells -= len(step.tokens)
                self.num_idle -= len(step.tokens)
                assert step.parent is not None
                del step.parent.children[step.tokens[0]]
        left = next((step for step in node.path() if step.num_paths), None)
        if left is not None and not left.slots and len(left.children) == 1:
            self._join(left)

    def _join(self, node: Node) -> None:
        (child,) = node.children.values()
        child.tokens = node.tokens + child.tokens
        child.start, child.parent = node.start, node.parent
        assert node.parent is not None
        node.parent.children[child.tokens[0]] = child

    def _activate(self, node: Node, change: int) -> None:
        was_idle = node.num_active == 0
        node.num_active += change
        is_idle = node.num_active == 0
        if was_idle != is_idle:
            self.num_idle += len(node.tokens) if is_idle else -len(node.tokens)


def common_prefix(a: array[int], a_start: int, b: array[int], b_start: int) -> int:
    """Return how many tokens of ``a[a_start:]`` and ``b[b_start:]`` are equal from the start."""
    limit = min(len(a) - a_start, len(b) - b_start)
    if a[a_start : a_start + limit] == b[b_start : b_start + limit]:
        return limit  # one comparison in C for the common case
    low, high = 0, limit  # equal for low tokens, not for high
    while high - low > 1:
        middle = (low + high) // 2
        if a[a_start + low : a_start + middle] == b[b_start + low : b_start + middle]:
            low = middle
        else:
            high = middle
    return low

"""PrefixTree: longest matches, counts and shape, checked against plain lists of tokens."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from avllm.engine.prefix_tree import PrefixTree, common_prefix
from avllm.engine.slot import Slot

from .harness import slot_tokens

_runs = st.lists(st.integers(0, 2), max_size=12)


def ids(*tokens: int) -> array[int]:
    """Return token ids in the form that the tree takes."""
    return array("i", tokens)


def insert(tree: PrefixTree, tokens: list[int], salt: str = "", *, active: bool = True) -> Slot:
    """Add a slot for ``tokens``, sharing what is known, as the ledger does."""
    root = tree.root(salt)
    node, length = tree.descend(root, ids(*tokens))
    slot = Slot(0, root, salt)
    slot.is_active = active
    tree.enter(tree.split(node, length), slot)
    if length < len(tokens):
        tree.append(slot, ids(*tokens[length:]))
    return slot


def check(tree: PrefixTree, expected: dict[Slot, list[int]]) -> None:
    """Compare the tree with the token lists of its slots, all of one salt."""
    prefixes = {tuple(t[: i + 1]) for t in expected.values() for i in range(len(t))}
    used = {
        tuple(t[: i + 1]) for slot, t in expected.items() if slot.is_active for i in range(len(t))
    }
    assert tree.num_cells == len(prefixes)
    assert tree.num_idle == len(prefixes - used)
    for node in tree.nodes():
        assert node.slots or len(node.children) > 1
        assert node.any_slot() in expected
    for slot, tokens in expected.items():
        assert slot_tokens(slot) == tokens


@given(_runs, _runs, st.integers(0, 5), st.integers(0, 5))
def test_common_prefix(a: list[int], b: list[int], a_start: int, b_start: int) -> None:
    expected = 0
    for x, y in zip(a[a_start:], b[b_start:], strict=False):
        if x != y:
            break
        expected += 1
    if a_start <= len(a) and b_start <= len(b):
        assert common_prefix(ids(*a), a_start, ids(*b), b_start) == expected


@given(st.lists(st.tuples(_runs, st.booleans()), max_size=8), st.data())
def test_counts_are_those_of_the_distinct_prefixes(
    runs: list[tuple[list[int], bool]], data: st.DataObject
) -> None:
    tree = PrefixTree()
    expected: dict[Slot, list[int]] = {}
    for tokens, active in runs:
        expected[insert(tree, tokens, active=active)] = tokens
        check(tree, expected)
    while expected:
        slot = data.draw(st.sampled_from(list(expected)))
        if data.draw(st.booleans()):
            tree.set_active(slot, not slot.is_active)
        elif slot.node.parent is not None and data.draw(st.booleans()):
            cut = slot.node.start  # shorten it to where its last run begins
            tree.move(slot, slot.node.parent)
            expected[slot] = expected[slot][:cut]
        else:
            tree.leave(slot)
            del expected[slot]
        check(tree, expected)
    assert tree.num_cells == tree.num_idle == 0


@given(st.lists(_runs, max_size=6), _runs)
def test_match_is_the_longest_common_prefix(runs: list[list[int]], query: list[int]) -> None:
    tree = PrefixTree()
    for tokens in runs:
        insert(tree, tokens)
    longest = max((common_prefix(ids(*t), 0, ids(*query), 0) for t in runs), default=0)
    node, length = tree.match(ids(*query), "")
    assert length == longest
    if length:
        assert node is not None
        assert node.start < length <= node.end


def test_salts_share_nothing() -> None:
    tree = PrefixTree()
    insert(tree, [1, 2, 3], "a")
    insert(tree, [1, 2, 3], "b")
    assert tree.num_cells == 6
    assert tree.match(ids(1, 2, 3), "a")[1] == 3
    assert tree.match(ids(1, 2, 3), "c") == (None, 0)


def test_a_salt_is_forgotten_with_its_last_slot() -> None:
    tree = PrefixTree()
    slots = [insert(tree, [1, 2], "a"), insert(tree, [], "a")]
    tree.leave(slots[0])
    assert tree.match(ids(1), "a") != (None, 0)
    tree.leave(slots[1])
    assert tree.match(ids(1), "a") == (None, 0)


def test_splitting_keeps_both_sides() -> None:
    tree = PrefixTree()
    slot = insert(tree, [1, 2, 3, 4])
    upper = tree.split(slot.node, 1)
    assert (list(upper.tokens), list(slot.node.tokens)) == ([1], [2, 3, 4])
    assert (upper.num_paths, upper.num_active) == (1, 1)
    assert tree.split(upper, 1) is upper
    assert tree.num_cells == 4


def test_trim_shortens_an_idle_end() -> None:
    tree = PrefixTree()
    slot = insert(tree, [1, 2, 3, 4], active=False)
    tree.trim(slot.node, 3)
    check(tree, {slot: [1]})


def test_idle_cells_end_where_the_match_ends() -> None:
    tree = PrefixTree()
    insert(tree, [1, 2])
    cached = insert(tree, [1, 2, 3, 4, 5], active=False)
    assert cached.node.idle_cells(5) == 3
    assert cached.node.idle_cells(4) == 2

"""KVCache: the ledger's words and llama.cpp's memory stay the same, call by call."""

from __future__ import annotations

from array import array

import pytest
from fake_memory import Cell, FakeMemory

from avllm.engine.kv_cache import KVCache
from avllm.engine.slot import Slot

from .harness import slot_tokens


class Ledger(KVCache):
    """A KVCache on fake memory, with the steps that a runner would compute."""

    def __init__(
        self, num_cells: int = 100, max_active: int = 4, *, max_ids: int = 256, share: bool = True
    ) -> None:
        self.fake = FakeMemory(num_cells, max_active + 1, can_cut=share)
        super().__init__(self.fake, num_cells, max_active, max_ids=max_ids, can_share=share)

    def run(self, text: str, salt: str = "", *, commit: bool = True) -> tuple[Slot, int]:
        """Open a slot for ``text``, compute the rest; return it and how much was shared."""
        slot = self.open(ids(text), salt, len(text) - 1)
        shared = slot.length
        self.extend(slot, text[shared:])
        if commit:
            self.commit(slot)
        return slot, shared

    def extend(self, slot: Slot, text: str) -> None:
        """Compute tokens at the end of a slot."""
        assert self.ensure_free(len(text))
        for position, token in enumerate(ids(text), slot.length):
            self.fake.put(slot.seq_id, Cell(position, token, 0))
        self.append(slot, ids(text))

    def keep(self, text: str, salt: str = "") -> None:
        """Compute ``text`` and leave it as cache."""
        self.close(self.run(text, salt)[0], keep=True)

    def check(self, *slots: Slot) -> None:
        """Compare ledger and memory; ``slots`` are the running ones."""
        cached = {slot for node in self.tree.nodes() for slot in node.slots if not slot.is_active}
        assert self.num_used == self.fake.num_used
        assert self.num_evictable == self.tree.num_idle
        known = {slot.seq_id for slot in [*cached, *slots]}
        assert len(known) == len(cached) + len(slots)
        assert self.fake.owners() <= known
        for slot in [*cached, *slots]:
            assert self.fake.tokens(slot.seq_id) == slot_tokens(slot)


def ids(text: str) -> array[int]:
    """Return one token id per letter."""
    return array("i", list(text.encode()))


def test_a_running_prefix_is_shared_and_counted_once() -> None:
    cache = Ledger()
    first, _ = cache.run("system: one")
    second, shared = cache.run("system: two")
    assert shared == len("system: ")
    assert cache.num_used == len("system: onetwo")
    cache.check(first, second)


def test_a_finished_sequence_is_cache_until_it_is_needed() -> None:
    cache = Ledger(20)
    cache.keep("abcdefgh")
    assert (cache.num_free, cache.num_evictable) == (12, 8)
    slot, shared = cache.run("abcdefghij")
    assert shared == 8
    assert cache.num_evictable == 0
    cache.check(slot)


def test_at_least_one_token_is_computed() -> None:
    cache = Ledger()
    cache.keep("abcdef")
    assert cache.match_length(ids("abcdef"), "") == (6, 6)
    slot, shared = cache.run("abcdef")
    assert shared == 5
    cache.check(slot)


def test_a_one_token_prompt_shares_nothing() -> None:
    cache = Ledger()
    cache.keep("a")
    slot, shared = cache.run("a")
    assert shared == 0
    cache.check(slot)
    assert cache.num_used == 1  # computed again, and ours freed for the known one


def test_commit_uses_cells_that_the_tree_has_already() -> None:
    cache = Ledger()
    first, _ = cache.run("abcdefgh", commit=False)
    second, _ = cache.run("abcdxyz", commit=False)
    assert cache.num_used == 15
    cache.commit(first)
    cache.commit(second)
    assert cache.num_used == 11
    cache.check(first, second)
    cache.extend(second, "!")
    cache.check(first, second)


def test_commit_of_a_known_run_leaves_nothing_private() -> None:
    cache = Ledger()
    first, _ = cache.run("abcdef", commit=False)
    second, _ = cache.run("abc", commit=False)
    cache.commit(first)
    cache.commit(second)
    assert (cache.num_used, second.num_private) == (6, 0)
    cache.close(first, keep=False)
    assert cache.num_used == 3
    cache.check(second)


def test_salts_never_share() -> None:
    cache = Ledger()
    cache.keep("secret prompt", "a")
    slot, shared = cache.run("secret prompt", "b")
    assert shared == 0
    assert cache.match_length(ids("secret"), "c") == (0, 0)
    cache.check(slot)


def test_closing_without_keeping_frees_what_nobody_else_has() -> None:
    cache = Ledger()
    first, _ = cache.run("abcdef")
    second, _ = cache.run("abcxyz")
    cache.close(first, keep=False)
    assert cache.num_used == 6
    cache.close(second, keep=False)
    assert cache.num_used == 0
    cache.check()


def test_a_slot_without_cells_takes_no_cached_id() -> None:
    cache = Ledger(max_active=1, max_ids=3)
    cache.keep("abc")
    cache.close(cache.open(ids("xyz"), "", 2), keep=True)
    assert cache.match_length(ids("abc"), "")[0] == 3
    cache.check()


def test_a_longer_sequence_replaces_the_cached_beginning_of_itself() -> None:
    cache = Ledger(max_active=1, max_ids=3)  # one id for cache
    for text in ("abc", "abcdef", "abcdefghi", "abcd"):
        cache.keep(text)
    assert cache.match_length(ids("abcdefghijk"), "")[0] == 9
    cache.check()


def test_the_beginning_of_itself_gives_its_id_before_other_cache_does() -> None:
    cache = Ledger(max_active=1, max_ids=4)  # two ids for cache
    for text in ("zzz", "abc", "abcdef"):
        cache.keep(text)
    assert cache.match_length(ids("zzz"), "")[0] == 3
    assert cache.match_length(ids("abcdef"), "")[0] == 6
    cache.check()


def test_the_least_recently_used_end_is_evicted_and_only_as_needed() -> None:
    cache = Ledger(30)
    cache.keep("aaaaaaaaaa")
    cache.keep("bbbbbbbbbb")
    slot, _ = cache.run("aaaaaaaaaa!")  # used again: b is older now
    cache.close(slot, keep=True)
    assert cache.ensure_free(12)
    assert cache.match_length(ids("aaaaaaaaaa!"), "")[0] == 11
    assert cache.match_length(ids("bbbbbbbbbb"), "")[0] == 7
    cache.check()


def test_evicting_one_conversation_leaves_the_prefix_of_another() -> None:
    cache = Ledger(20)
    cache.keep("prefix-one")
    cache.keep("prefix-two")
    assert cache.num_used == 13
    assert cache.ensure_free(10)
    assert cache.match_length(ids("prefix-two"), "")[0] == 10
    assert cache.match_length(ids("prefix-one"), "")[0] == 7
    assert cache.ensure_free(20)
    assert cache.num_used == 0
    cache.check()


def test_eviction_never_touches_what_runs() -> None:
    cache = Ledger(20)
    cache.keep("prefix-cached")
    slot, _ = cache.run("prefix-runs")
    assert not cache.ensure_free(10)
    assert cache.num_used == slot.length == 11
    cache.check(slot)


def test_running_out_of_cached_ids_drops_the_oldest() -> None:
    cache = Ledger(max_active=2, max_ids=5)  # two ids for cache
    for text in ("aaa", "bbb", "ccc"):
        cache.keep(text)
    assert [cache.match_length(ids(t), "")[0] for t in ("aaa", "bbb", "ccc")] == [0, 3, 3]
    cache.check()


def test_without_cached_ids_nothing_is_kept() -> None:
    cache = Ledger(max_active=2, max_ids=3)
    cache.keep("aaa")
    assert cache.num_used == 0
    cache.check()


def test_ids_are_used_up_and_come_back() -> None:
    cache = Ledger(max_active=3)
    slots = [cache.run(text)[0] for text in ("a1", "b2", "c3")]
    assert not cache.has_free_id
    cache.close(slots[1], keep=True)
    assert cache.has_free_id
    slot, _ = cache.run("d4")
    assert slot.seq_id < 3
    cache.check(slots[0], slots[2], slot)


def test_memory_that_cannot_be_shared_stands_alone() -> None:
    cache = Ledger(share=False)
    first, _ = cache.run("abcdef")
    second, shared = cache.run("abcdef")
    assert (shared, cache.num_used) == (0, 12)
    assert cache.match_length(ids("abcdef"), "") == (0, 0)
    parked = cache.park(second, 2**20)
    assert parked is not None
    assert cache.num_used == 6
    back = cache.restore(parked, ids("abcdef"), "")
    assert back is not None
    cache.check(first, back)
    for slot in (first, back):
        cache.close(slot, keep=True)
    assert cache.num_used == cache.fake.num_used == 0


def test_parking_keeps_the_shared_prefix_and_restores_the_rest() -> None:
    cache = Ledger()
    other, _ = cache.run("system: other")
    slot, _ = cache.run("system: mine")
    cache.extend(slot, "++")
    parked = cache.park(slot, 2**20)
    assert parked is not None
    assert (parked.shared, parked.num_cells) == (8, 6)
    assert cache.num_used == 13
    cache.check(other)
    back = cache.restore(parked, ids("system: mine++"), "")
    assert back is not None
    assert len(parked.state) == 0
    cache.check(other, back)
    assert slot_tokens(back) == list(ids("system: mine++"))


def test_a_parked_prefix_outlives_the_one_it_was_shared_with() -> None:
    cache = Ledger()
    other, _ = cache.run("system: other")
    slot, _ = cache.run("system: mine")
    parked = cache.park(slot, 2**20)
    assert parked is not None
    cache.close(other, keep=False)
    assert cache.num_used == cache.num_evictable == 8
    assert cache.cells_to_restore(parked) == 8 + 4
    back = cache.restore(parked, ids("system: mine"), "")
    assert back is not None
    cache.check(back)


def test_making_room_to_restore_takes_other_cache_first() -> None:
    cache = Ledger(20)
    other, _ = cache.run("prefix: x")
    slot, _ = cache.run("prefix: mine")
    parked = cache.park(slot, 2**20)
    assert parked is not None
    cache.close(other, keep=True)
    cache.keep("0123456789")
    back = cache.restore(parked, ids("prefix: mine"), "")
    assert back is not None
    cache.check(back)


def test_prefixes_of_parked_sequences_are_evicted_last() -> None:
    cache = Ledger(20)
    other, _ = cache.run("prefix: x")
    slot, _ = cache.run("prefix: mine")
    parked = cache.park(slot, 2**20)
    assert parked is not None
    cache.close(other, keep=False)
    cache.keep("0123456789")
    assert cache.ensure_free(12)
    assert cache.match_length(ids("prefix: mine"), "")[0] == 8
    assert cache.restore(parked, ids("prefix: mine"), "") is not None


def test_restoring_takes_the_prefix_of_another_before_its_own() -> None:
    cache = Ledger(16)
    parked = []
    for group in "ab":
        other, _ = cache.run(f"{group}{group}{group}: x")
        slot, _ = cache.run(f"{group}{group}{group}: y")
        state = cache.park(slot, 2**20)
        assert state is not None
        parked.append(state)
        cache.close(other, keep=False)
    running, _ = cache.run("z" * 6)
    back = cache.restore(parked[0], ids("aaa: y"), "")
    assert back is not None
    cache.check(running, back)
    assert cache.restore(parked[1], ids("bbb: y"), "") is None


def test_a_parked_sequence_whose_prefix_was_evicted_must_be_computed_again() -> None:
    cache = Ledger(20)
    other, _ = cache.run("prefix: x")
    slot, _ = cache.run("prefix: mine")
    parked = cache.park(slot, 2**20)
    assert parked is not None
    cache.close(other, keep=False)
    assert cache.ensure_free(19)
    assert cache.restore(parked, ids("prefix: mine"), "") is None
    assert cache.num_used == 0
    cache.check()


def test_dropping_a_parked_state_frees_its_prefix() -> None:
    cache = Ledger()
    other, _ = cache.run("prefix: x")
    slot, _ = cache.run("prefix: mine")
    parked = cache.park(slot, 2**20)
    assert parked is not None
    cache.close(other, keep=False)
    cache.drop(parked)
    cache.drop(parked)
    assert cache.num_used == 0
    cache.check()


def test_a_refused_restore_leaves_nothing_behind() -> None:
    cache = Ledger()
    slot, _ = cache.run("abcdef", "salt")
    parked = cache.park(slot, 2**20)
    assert parked is not None
    cache.fake.fail_restores = 1
    assert cache.restore(parked, ids("abcdef"), "salt") is None
    assert cache.num_used == cache.fake.num_used == 0
    assert cache.tree.match(ids("abcdef"), "salt") == (None, 0)
    assert [cache.run(text)[0].seq_id for text in "wxyz"] == [0, 1, 2, 3]


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("failure", ["too large", "no memory"])
def test_what_cannot_be_parked_stays_as_it_was(failure: str, shares: bool) -> None:
    cache = Ledger()
    other, _ = cache.run("prefix: x" if shares else "other")
    slot, _ = cache.run("prefix: mine")
    cache.fake.fail_saves = int(failure == "no memory")
    assert cache.park(slot, 0 if failure == "too large" else 2**20) is None
    cache.check(other, slot)
    cache.extend(slot, "!")
    cache.check(other, slot)


def test_rollback_cuts_what_was_not_counted() -> None:
    cache = Ledger()
    slot, _ = cache.run("abc")
    cache.fake.put(slot.seq_id, Cell(3, 99, 0))
    assert cache.rollback(slot)
    cache.check(slot)


def test_rollback_of_memory_that_cannot_be_cut_is_refused() -> None:
    cache = Ledger(share=False)
    slot, _ = cache.run("abc")
    cache.fake.put(slot.seq_id, Cell(3, 99, 0))
    assert not cache.rollback(slot)


def test_reset_forgets_everything_and_starts_again() -> None:
    cache = Ledger(max_active=2, max_ids=6)
    cache.keep("aaa")
    cache.run("bbb")
    cache.reset()
    assert (cache.num_used, cache.fake.num_used) == (0, 0)
    for text in ("aaa", "bbb", "ccc", "ddd"):  # as many cached ids as before: three
        cache.keep(text)
    assert [cache.match_length(ids(t), "")[0] for t in ("aaa", "bbb", "ddd")] == [0, 3, 3]
    cache.check()

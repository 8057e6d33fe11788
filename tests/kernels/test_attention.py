"""The attention kernel against the reference, on the shapes, masks and options that models use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .attention import Case, counts, kernel, random_case, runnable_kernels, shared_pool

KERNELS = runnable_kernels()
# F32 arithmetic on sums of up to a few thousand terms of size 1
TOLERANCE = 3e-6


def check(case: Case) -> None:
    """The operation is ours, and its result is the reference's."""
    before = counts().ours
    result = case.run()
    assert counts().ours == before + 1, "left to stock"
    np.testing.assert_allclose(result, case.reference(), rtol=2e-5, atol=TOLERANCE)


@pytest.fixture(params=KERNELS)
def any_kernel(request: pytest.FixtureRequest):
    """Run the test with each kernel that can run here."""
    with kernel(request.param):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.mark.usefixtures("any_kernel")
class TestShapes:
    def test_decode_of_many_sequences_over_one_pool(self, rng):
        mask = shared_pool(rng, [100, 7, 64, 1, 130], [1] * 5, 512)
        check(random_case(rng, rows=5, cells=512, mask=mask))

    @pytest.mark.parametrize("threads", [1, 2, 3, 5])
    def test_one_long_sequence_is_cut_for_the_threads(self, rng, threads):
        mask = shared_pool(rng, [1999], [1], 2048)
        check(random_case(rng, rows=1, cells=2048, mask=mask, threads=threads))

    def test_prefill_from_the_start(self, rng):
        check(random_case(rng, rows=150, cells=256, mask=shared_pool(rng, [150], [150], 256)))

    def test_prefill_and_decodes_in_one_batch(self, rng):
        mask = shared_pool(rng, [90, 300, 33, 200, 65], [1, 80, 1, 100, 1], 768)
        check(random_case(rng, rows=183, cells=768, mask=mask, threads=3))

    def test_two_prefills_meet_within_a_tile(self, rng):
        mask = shared_pool(rng, [40, 40], [25, 30], 256)
        check(random_case(rng, rows=55, cells=256, mask=mask))

    def test_sliding_window(self, rng):
        mask = shared_pool(rng, [400, 180], [60, 1], 768, window=100)
        check(random_case(rng, rows=61, cells=768, mask=mask))

    @pytest.mark.parametrize("size", [64, 72, 80, 96, 112, 128, 192, 256])
    @pytest.mark.parametrize("rows", [1, 40])
    def test_head_sizes(self, rng, size, rows):
        mask = shared_pool(rng, [150], [rows], 256)
        check(random_case(rng, rows=rows, cells=256, size=size, mask=mask, kv_heads=1))

    @pytest.mark.parametrize("rows", [1, 40])
    def test_values_of_another_size_than_keys(self, rng, rows):
        mask = shared_pool(rng, [150], [rows], 256)
        check(random_case(rng, rows=rows, cells=256, size=192, v_size=128, mask=mask))

    @pytest.mark.parametrize("group", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 71])
    @pytest.mark.parametrize("rows", [1, 9])
    def test_group_sizes(self, rng, group, rows):
        mask = shared_pool(rng, [150], [rows], 256)
        check(random_case(rng, rows=rows, cells=256, group=group, kv_heads=2, mask=mask))

    @pytest.mark.parametrize("k_type", ["f32", "f16", "q8_0"])
    @pytest.mark.parametrize("v_type", ["f32", "f16", "q8_0"])
    @pytest.mark.parametrize("rows", [1, 40])
    def test_kv_types(self, rng, k_type, v_type, rows):
        mask = shared_pool(rng, [150], [rows], 256)
        case = random_case(rng, rows=rows, cells=256, mask=mask, k_type=k_type, v_type=v_type)
        check(case)

    def test_separate_caches(self, rng):
        masks = [shared_pool(rng, [n], [2], 256) for n in (100, 3, 256)]
        check(random_case(rng, rows=2, cells=256, streams=3, mask=np.concatenate(masks)))

    def test_one_mask_for_all_streams(self, rng):
        mask = shared_pool(rng, [100], [2], 256)
        check(random_case(rng, rows=2, cells=256, streams=2, mask=mask))

    @pytest.mark.parametrize("rows", [1, 70])
    def test_no_mask(self, rng, rows):
        check(random_case(rng, rows=rows, cells=77, mask=None))


@pytest.mark.usefixtures("any_kernel")
class TestOptions:
    @pytest.mark.parametrize("rows", [1, 40])
    def test_soft_cap(self, rng, rows):
        mask = shared_pool(rng, [150], [rows], 256)
        check(random_case(rng, rows=rows, cells=256, mask=mask, softcap=1.5))

    @pytest.mark.parametrize("rows", [1, 40])
    @pytest.mark.parametrize("group", [3, 4])
    def test_alibi(self, rng, rows, group):
        mask = shared_pool(rng, [150], [rows], 256)
        mask[mask == 0] = -rng.integers(0, 60, (mask == 0).sum())
        check(random_case(rng, rows=rows, cells=256, mask=mask, group=group, max_bias=8.0))

    @pytest.mark.parametrize("rows", [1, 40])
    def test_sinks(self, rng, rows):
        mask = shared_pool(rng, [150], [rows], 256)
        sinks = (rng.normal(size=9) * 5).astype(np.float32)
        check(random_case(rng, rows=rows, cells=256, mask=mask, sinks=sinks))

    def test_sinks_of_a_sequence_that_is_cut(self, rng):
        mask = shared_pool(rng, [1000], [1], 1024)
        sinks = np.full(9, 3, np.float32)
        check(random_case(rng, rows=1, cells=1024, mask=mask, sinks=sinks, threads=4))


@pytest.mark.usefixtures("any_kernel")
class TestExtremes:
    @pytest.mark.parametrize("rows", [1, 40])
    @pytest.mark.parametrize("sinks", [None, np.zeros(9, np.float32)])
    def test_rows_that_see_nothing_give_zeros(self, rng, rows, sinks):
        mask = np.full((1, rows, 256), -np.inf, np.float16)
        result = random_case(rng, rows=rows, cells=256, mask=mask, sinks=sinks).run()
        np.testing.assert_array_equal(result, 0)

    def test_hidden_cells_may_hold_anything(self, rng):
        mask = shared_pool(rng, [90, 40], [1, 33], 256)
        case = random_case(rng, rows=34, cells=256, mask=mask)
        unseen = (mask[0] == -np.inf).all(axis=0)
        expected = case.run()
        case.k_stored[:, unseen] = np.nan
        case.v_stored[:, unseen] = np.inf
        np.testing.assert_array_equal(case.run(), expected)

    @pytest.mark.parametrize("rows", [1, 40])
    def test_large_scores_do_not_overflow(self, rng, rows):
        mask = shared_pool(rng, [150], [rows], 256)
        case = random_case(rng, rows=rows, cells=256, mask=mask)
        case.q *= 300
        np.testing.assert_allclose(case.run(), case.reference(), rtol=1e-3, atol=1e-3)

    def test_subnormal_keys_and_values(self, rng):
        mask = shared_pool(rng, [150], [1], 256)
        case = random_case(rng, rows=1, cells=256, mask=mask)
        tiny = Case(case.q, case.k * 1e-6, case.v * 1e-6, mask)
        np.testing.assert_allclose(tiny.run(), tiny.reference(), rtol=1e-5, atol=1e-11)


def test_uncovered_types_are_left_to_stock(rng):
    mask = shared_pool(rng, [100], [1], 256)
    before = counts().stock
    with kernel("stock"):
        stock = random_case(np.random.default_rng(1), rows=1, cells=256, mask=mask).run()
    assert counts().stock == before + 1
    ours = random_case(np.random.default_rng(1), rows=1, cells=256, mask=mask).run()
    assert counts().stock == before + 1
    np.testing.assert_allclose(stock, ours, atol=2e-3)


def test_an_unknown_kernel_is_refused():
    from .attention import library

    before = library().avllm_attention_name()
    assert library().avllm_attention_select(b"fastest") == -1
    assert library().avllm_attention_name() == before


@st.composite
def problems(draw: st.DrawFn) -> Case:
    """Sequences of any lengths with any numbers of rows in one pool, and any options."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = st.tuples(st.integers(1, 300), st.integers(1, 90))
    sequences = draw(st.lists(sizes, min_size=1, max_size=6))
    lengths = [length for length, _ in sequences]
    rows = [min(n, length) for length, n in sequences]
    cells = sum(lengths) + draw(st.integers(0, 300))
    mask = shared_pool(rng, lengths, rows, cells, draw(st.sampled_from([0, 0, 20, 150])))
    max_bias = draw(st.sampled_from([0.0, 0.0, 8.0]))
    if max_bias:
        mask[mask == 0] = -rng.integers(0, 99, (mask == 0).sum())
    group, kv_heads = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    kinds = st.sampled_from(["f32", "f16", "q8_0"])
    sinks = rng.normal(size=group * kv_heads).astype(np.float32)
    return random_case(
        rng,
        rows=sum(rows),
        cells=cells,
        mask=mask,
        group=group,
        kv_heads=kv_heads,
        size=draw(st.sampled_from([64, 96, 128, 160, 256])),
        k_type=draw(kinds),
        v_type=draw(kinds),
        max_bias=max_bias,
        softcap=draw(st.sampled_from([0.0, 0.0, 2.0, 30.0])),
        sinks=draw(st.sampled_from([None, sinks])),
        threads=draw(st.integers(1, 4)),
    )


@pytest.mark.parametrize("name", KERNELS)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(case=problems())
def test_any_problem_is_solved_exactly(name: str, case: Case):
    with kernel(name):
        check(case)

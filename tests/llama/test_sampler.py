"""Sampling against a plain numpy reading of the same stages."""

from __future__ import annotations

import numpy as np
import pytest

from avllm.llama import Sampler
from avllm.sampling_params import SamplingParams

N_VOCAB = 5000
DRAWS = 20_000


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 3, N_VOCAB).astype(np.float32)


def test_greedy_takes_the_likeliest_and_the_first_of_equals(logits: np.ndarray) -> None:
    logits[[4000, 70]] = 50
    assert _sampler(temperature=0).sample(logits) == 70


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 5},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 1.0, "min_p": 0.2},
        {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
        {"temperature": 2.0, "top_p": 0.999},
    ],
)
def test_draws_follow_the_distribution(logits: np.ndarray, params: dict[str, float]) -> None:
    expected = _probabilities(logits, **params)
    sampler = _sampler(seed=7, **params)
    counts = np.bincount([sampler.sample(logits) for _ in range(DRAWS)], minlength=N_VOCAB)
    assert counts[expected == 0].sum() == 0
    likely = expected * DRAWS >= 5
    chi_square = (
        (counts[likely] - DRAWS * expected[likely]) ** 2 / (DRAWS * expected[likely])
    ).sum()
    degrees = max(likely.sum() - 1, 1)
    # Mean `degrees`, standard deviation sqrt(2 degrees): five of those is no accident.
    assert chi_square < degrees + 5 * np.sqrt(2 * degrees)


def test_the_same_seed_gives_the_same_draws(logits: np.ndarray) -> None:
    a, b = _sampler(seed=3), _sampler(seed=3)
    assert [a.sample(logits) for _ in range(50)] == [b.sample(logits) for _ in range(50)]


def test_sequences_of_one_request_draw_differently(logits: np.ndarray) -> None:
    params = SamplingParams(seed=3)
    draws = [
        [sampler.sample(logits) for _ in range(20)]
        for sampler in (Sampler(params, N_VOCAB, index) for index in range(4))
    ]
    assert len({tuple(draw) for draw in draws}) == 4


def test_logits_are_unchanged_afterwards(logits: np.ndarray) -> None:
    before = logits.copy()
    sampler = _sampler(logit_bias={3: 5.0, 9: -100}, repeat_penalty=1.3, presence_penalty=1.0)
    for _ in range(20):
        sampler.sample(logits)
    np.testing.assert_array_equal(logits, before)


def test_bias_lifts_and_bans(logits: np.ndarray) -> None:
    best = int(logits.argmax())
    assert _sampler(temperature=0, logit_bias={best: -100}).sample(logits) != best
    assert _sampler(temperature=0, logit_bias={17: 100}).sample(logits) == 17


def test_presence_penalty_counts_generated_tokens_once(logits: np.ndarray) -> None:
    logits[:] = -10
    logits[[1, 2]] = [5.0, 4.5]
    sampler = _sampler(temperature=0, presence_penalty=1.0)
    assert [sampler.sample(logits) for _ in range(4)] == [1, 2, 1, 1]


def test_frequency_penalty_grows_with_each_occurrence(logits: np.ndarray) -> None:
    logits[:] = -10
    logits[[1, 2]] = [5.0, 4.4]
    sampler = _sampler(temperature=0, frequency_penalty=1.0)
    assert [sampler.sample(logits) for _ in range(4)] == [1, 2, 1, 2]


def test_repeat_penalty_sees_the_prompt_within_its_window(logits: np.ndarray) -> None:
    logits[:] = -10
    logits[[1, 2]] = [5.0, 4.5]
    prompt = np.array([1] + [9] * 5, dtype=np.int32)
    near = _sampler(temperature=0, repeat_penalty=1.5, repeat_last_n=10)
    near.accept_prompt(prompt)
    assert near.sample(logits) == 2
    far = _sampler(temperature=0, repeat_penalty=1.5, repeat_last_n=5)
    far.accept_prompt(prompt)
    assert far.sample(logits) == 1


def test_no_finite_candidate_gives_no_token() -> None:
    for value in (np.nan, -np.inf):
        logits = np.full(N_VOCAB, value, dtype=np.float32)
        for params in ({"temperature": 0}, {"temperature": 1.0}, {"top_p": 0.5}, {"top_k": 3}):
            assert _sampler(**params).sample(logits) == -1


def test_a_single_nan_among_logits_does_not_pick_garbage(logits: np.ndarray) -> None:
    logits[-1] = np.nan
    assert _sampler(temperature=0).sample(logits) == int(np.nanargmax(logits))
    assert _sampler(temperature=1.0).sample(logits) == -1


def test_logit_rows_of_another_size_are_refused(logits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected 5000"):
        _sampler().sample(logits[:-1].copy())


def test_logprobs_are_those_before_the_samplers(logits: np.ndarray) -> None:
    shifted = logits.astype(np.float64) - logits.max()
    reference = shifted - np.log(np.exp(shifted).sum())
    token, logprob, top = _sampler(temperature=0, logprobs=5, logit_bias={42: 100}).sample(logits)
    assert token == 42
    assert logprob == pytest.approx(reference[42], abs=1e-4)
    best = np.argsort(-reference)[:5]
    assert [token for token, _ in top] == best.tolist()
    assert [value for _, value in top] == pytest.approx(reference[best].tolist(), abs=1e-4)


def _sampler(**params: object) -> Sampler:
    return Sampler(SamplingParams(**params), N_VOCAB)  # type: ignore[arg-type]


def _probabilities(
    logits: np.ndarray,
    temperature: float = 1.0,
    top_k: float = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> np.ndarray:
    # The stages in llama.cpp's order, each on the distribution that the one before left.
    order = np.argsort(-logits.astype(np.float64), kind="stable")
    kept = order[: int(top_k)] if top_k else order
    p = np.exp(logits[kept].astype(np.float64) - logits.max())
    p /= p.sum()
    if top_p < 1:
        keep = np.searchsorted(np.cumsum(p), top_p) + 1
        kept, p = kept[:keep], p[:keep]
    kept = kept[p >= min_p * p[0]]
    weights = np.exp((logits[kept].astype(np.float64) - logits.max()) / temperature)
    result = np.zeros(len(logits))
    result[kept] = weights / weights.sum()
    return result

from array import array

import numpy as np
import numpy.typing as npt

from avllm.llama.context import Context
from avllm.sampling_params import SamplingParams

Answer = int | tuple[int, float, list[tuple[int, float]]]

class Sampler:
    n_vocab: int
    num_logprobs: int
    def __init__(self, params: SamplingParams, n_vocab: int, index: int = 0) -> None: ...
    def accept_prompt(self, tokens: array[int] | npt.NDArray[np.int32]) -> None: ...
    def sample(self, logits: npt.NDArray[np.float32]) -> Answer: ...

def sample_rows(
    context: Context, samplers: list[Sampler], rows: list[int], num_threads: int
) -> list[Answer]: ...

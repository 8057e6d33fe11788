"""Loading: what a model tells, and every way in which a file can be wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from avllm.errors import ModelLoadError
from avllm.llama import ChatTemplate, Model, Vocab


def test_model_tells_what_it_is(model: Model) -> None:
    assert model.architecture == "llama"
    assert model.n_params == 134_515_008
    assert model.context_length == 8192
    assert model.metadata["general.architecture"] == "llama"
    assert "<|im_start|>" in model.chat_template_source
    assert model.has_decoder
    assert model.can_cut_memory


def test_loading_reports_progress_up_to_one(model_path: Path) -> None:
    seen: list[float] = []
    Model(str(model_path), on_progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 100
    assert seen[-1] == 1.0


def test_loading_is_cancelled_by_false(model_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cancelled") as caught:
        Model(str(model_path), on_progress=lambda progress: progress < 0.3)
    assert caught.value.reason == "cancelled"


def test_an_exception_of_the_callback_ends_the_load_and_is_raised(model_path: Path) -> None:
    def fail(progress: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Model(str(model_path), on_progress=fail)


def test_vocab_only_reads_metadata_and_no_weights(model_path: Path) -> None:
    model = Model(str(model_path), vocab_only=True)
    assert Vocab(model).size == 49152
    assert model.architecture == "llama"


def test_missing_file(tmp_path: Path) -> None:
    assert _reason(tmp_path / "nothing.gguf") == "missing"


def test_directory(tmp_path: Path) -> None:
    assert _reason(tmp_path) == "directory"


def test_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "empty.gguf"
    file.write_bytes(b"")
    assert _reason(file) == "truncated"


def test_wrong_magic(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"PK\x03\x04" + bytes(100))
    assert _reason(file) == "magic"


@pytest.mark.parametrize("size", [20, 50_000, 50_000_000])
def test_truncated_file(model_path: Path, tmp_path: Path, size: int) -> None:
    file = tmp_path / "model.gguf"
    with model_path.open("rb") as source:
        file.write_bytes(source.read(size))
    assert _reason(file) == "truncated"


def test_unknown_architecture(model_path: Path, tmp_path: Path) -> None:
    content = bytearray(model_path.read_bytes())
    at = content.find(b"llama", content.find(b"general.architecture"))
    content[at : at + 5] = b"xlama"
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelLoadError, match="xlama") as caught:
        Model(str(file))
    assert caught.value.reason == "architecture"


_TOO_LITTLE_MEMORY = """
import resource, sys
from avllm.errors import ModelLoadError
from avllm.llama import Context, Model
model = Model(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    Context(model, n_ctx=1 << 20, n_batch=64, n_seq_max=1, num_threads=1)
except ModelLoadError as error:
    print(error.reason, error)
"""


def test_too_little_memory_for_the_cache_is_an_error_and_not_a_crash(model_path: Path) -> None:
    output = _python(_TOO_LITTLE_MEMORY, model_path)
    assert output.startswith("memory")
    assert "1048576 cells" in output


_TOO_LITTLE_FOR_WEIGHTS = """
import resource, sys
from avllm.errors import ModelLoadError
from avllm.llama import Model, initialise
initialise()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), used + (40 << 20)))
try:
    Model(sys.argv[1])
except ModelLoadError as error:
    print(error.reason, error)
"""


def test_too_little_memory_for_the_weights_is_an_error_and_not_a_crash(model_path: Path) -> None:
    output = _python(_TOO_LITTLE_FOR_WEIGHTS, model_path)
    assert output.startswith("memory")


def test_chat_template_is_the_models_own(model: Model) -> None:
    template = ChatTemplate(model)
    assert template.is_explicit
    text = template.render(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    )
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_chat_template_can_be_replaced(model: Model) -> None:
    source = "{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}"
    template = ChatTemplate(model, source)
    assert template.render([{"role": "user", "content": "Hi"}]) == "[user: Hi]"


def test_a_template_that_does_not_parse_is_a_load_error(model: Model) -> None:
    with pytest.raises(ModelLoadError, match="chat template"):
        ChatTemplate(model, "{% for %}")


def _python(code: str, model_path: Path) -> str:
    command = [sys.executable, "-c", code, str(model_path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def _reason(path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        Model(str(path))
    assert str(path) in str(caught.value)
    return caught.value.reason

"""avllm chat, on the fake engine: piped, and in a terminal of its own for Ctrl-C and Ctrl-D."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from .conftest import Run
from .fake_engine import FakeEngine

START = """
import avllm
from cli.fake_engine import FakeEngine
avllm.Engine = FakeEngine
from avllm.cli import main
main(prog_name="avllm")
"""
CTRL_C, CTRL_D = b"\x03", b"\x04"


def test_conversation(run: Run, engines: list[FakeEngine], fake_model: str) -> None:
    result = run("chat", fake_model, "--system", "Be kind.", stdin="hello there\n\nand now\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == "HELLO THERE\nAND NOW\n"
    system = {"role": "system", "content": "Be kind."}
    question = {"role": "user", "content": "hello there"}
    answer = {"role": "assistant", "content": "HELLO THERE"}
    assert engines[0].conversations == [
        [system, question],
        [system, question, answer, {"role": "user", "content": "and now"}],
    ]
    assert engines[0].closed


def test_figures_after_an_answer(run: Run, engines: list[FakeEngine], fake_model: str) -> None:
    result = run("chat", fake_model, stdin="one two three\n")
    # Two tokens in half a second after the first, which took 0.01 + 0.09 s.
    assert "3 tokens · 4.0 tokens/s · first after 0.10 s" in result.stderr


def test_commands(run: Run, engines: list[FakeEngine], fake_model: str) -> None:
    lines = ["a", "/clear", "b", "/system Be brief.", "c", "/system", "d", "/help", "/nope",
             "/exit", "never asked"]  # fmt: skip
    result = run("chat", fake_model, stdin="\n".join(lines))
    asked = engines[0].conversations
    assert [[m["content"] for m in conversation] for conversation in asked] == [
        ["a"], ["b"], ["Be brief.", "c"], ["d"],
    ]  # fmt: skip
    assert "There is no command /nope" in result.stderr
    assert result.stderr.count("/clear ") == 2


def test_refused_question_is_forgotten(
    run: Run, engines: list[FakeEngine], fake_model: str
) -> None:
    result = run("chat", fake_model, stdin="too long\nshort\n")
    assert result.exit_code == 0
    assert "error: the prompt has 9,000 tokens and 8,192 fit. /clear begins anew." in result.stderr
    assert [m["content"] for m in engines[0].conversations[1]] == ["short"]


class Terminal:
    """A child process on a pseudo-terminal."""

    def __init__(self, model: str) -> None:
        self.master, slave = pty.openpty()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, "chat", model],
            stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    def expect(self, text: str, press: bytes = b"") -> None:
        """Wait until `text` has come after what was expected before, pressing a key meanwhile.

        Pressed again and again: a SIGINT in the moment between the prompt and readline's wait
        for input is not seen before the next key.
        """
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
            self.send(press)
            if select.select([self.master], [], [], 0.3)[0]:
                self.seen += os.read(self.master, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def _take_terminal() -> None:
    """Make the pseudo-terminal the controlling one, so that ^C becomes SIGINT."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(fake_model: str) -> Iterator[Terminal]:
    """avllm chat on the fake engine, waiting for the first question."""
    running = Terminal(fake_model)
    try:
        running.expect("/help lists the commands")
        running.expect("> ")
        yield running
    finally:
        running.close()


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal: Terminal) -> None:
    terminal.send(b"forever\n")
    terminal.expect("again again")
    terminal.send(CTRL_C)
    terminal.expect("stopped")
    terminal.expect("> ")
    terminal.send(b"still here\n")
    terminal.expect("STILL HERE")
    terminal.expect("tokens/s")
    terminal.expect("> ")
    terminal.send(CTRL_D)
    assert terminal.process.wait(20) == 0


def test_ctrl_c_at_the_prompt_tells_how_to_leave(terminal: Terminal) -> None:
    terminal.send(b"half a line")
    terminal.expect("half a line")
    terminal.expect("(Ctrl-D or /exit leaves)", press=CTRL_C)
    terminal.expect("> ")
    terminal.send(b"/exit\n")
    assert terminal.process.wait(20) == 0

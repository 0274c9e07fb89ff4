from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb

from tests.support.media import png

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.clients.conftest import Context, FakeAgentService, Service

_TIMEOUT = 90


@pytest.fixture
def chat_settings(service: Service, chat_environment: dict[str, str]) -> dict[str, str]:
    return chat_environment | {"GODOTY_LISTEN": service.target, "GODOTY_API_KEY": service.api_key}


async def _chat(
    command: list[str], environment: dict[str, str], typed: str = "", cwd: Path | None = None
) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(typed.encode()), timeout=_TIMEOUT)
    return process.returncode or 0, out.decode(), err.decode()


async def test_once_prints_answer_and_cost(
    chat_command: list[str], chat_settings: dict[str, str], session_id: str
) -> None:
    """One turn: the answer, then a line with the turn's cost, the session's and the served model."""
    command = [*chat_command, "--session", session_id, "--once", "@sandbox plain text=hello"]

    code, out, err = await _chat(command, chat_settings)

    assert (code, err) == (0, "")
    *answer, last = out.splitlines()
    assert "hello" in "\n".join(answer)
    assert re.fullmatch(r"turn: \$0\.\d+, \d+ tokens \| session: \$0\.\d+, 1 turn, \d+ tokens \| \S+/\S+", last)


async def test_reopened_session_shows_history_and_cost(
    chat_command: list[str], chat_settings: dict[str, str], session_id: str
) -> None:
    """Opened again, a session shows what was said and, as the last line, what it has cost so far."""
    command = [*chat_command, "--session", session_id]
    _, first, _ = await _chat([*command, "--once", "@sandbox plain text=hello"], chat_settings)

    code, out, err = await _chat(command, chat_settings)

    assert (code, err) == (0, "")
    assert "> @sandbox plain text=hello" in out
    session = re.search(r"session: (.*?) \|", first)
    assert session is not None
    assert out.rstrip().splitlines()[-1] == f"so far: {session[1]}"


async def test_piped_lines_are_turns(chat_command: list[str], chat_settings: dict[str, str], session_id: str) -> None:
    """Each line of a pipe is a turn or a command, until /quit."""
    typed = "@sandbox tool-loop calls=3\n\n/metrics\n/sessions\n/help\n/quit\nnever said\n"

    code, out, err = await _chat([*chat_command, "--session", session_id], chat_settings, typed)

    assert (code, err) == (0, "")
    assert f"A new session, {session_id}." in out
    assert len(re.findall(r"^\[\w+\] .* → ok in .*$", out, re.MULTILINE)) == 2
    assert re.search(rf"^{session_id}: \$0\.\d+, 1 turn, \d+ tokens", out, re.MULTILINE)
    assert re.search(rf"^{session_id} +\$0\.\d+ ", out, re.MULTILINE)
    assert "/model NAME" in out
    assert "never said" not in out


async def test_file_is_attached_to_the_next_message(
    chat_command: list[str], chat_settings: dict[str, str], session_id: str, tmp_path: Path
) -> None:
    """Its type and size are shown, now and in the history; a file that is none, or no attachment, is an error."""
    picture, text = tmp_path / "picture", tmp_path / "text.png"
    picture.write_bytes(png(30, 20))
    text.write_text("no picture")
    command = [*chat_command, "--session", session_id, "--model", "anthropic/claude-haiku-4.5"]
    typed = f"/attach {tmp_path}/missing\n/attach {text}\n/attach {picture}\nlook\nand now?\n"

    _, out, err = await _chat(command, chat_settings, typed)
    assert re.search(r"^attached to the next message: image/png, 30 x 20, \d+ bytes$", out, re.MULTILINE)
    assert "No such file" in err
    assert "ATTACHMENT_REJECTED" in err
    _, out, _ = await _chat(command, chat_settings)

    assert len(re.findall(r"^\[image/png, 30 x 20, \d+ bytes\]$", out, re.MULTILINE)) == 1


async def test_file_of_a_refused_turn_is_attached_to_the_next(
    chat_command: list[str], chat_settings: dict[str, str], session_id: str, tmp_path: Path
) -> None:
    """The model takes no images: with another one, the file is still attached."""
    picture = tmp_path / "picture"
    picture.write_bytes(png(30, 20))
    command = [*chat_command, "--session", session_id, "--model", "deepseek/deepseek-v3.2"]

    _, _, err = await _chat(
        command, chat_settings, f"/attach {picture}\nlook\n/model anthropic/claude-haiku-4.5\nlook again\nand now?\n"
    )
    assert "INPUT_NOT_SUPPORTED" in err
    _, out, _ = await _chat(command, chat_settings)

    assert len(re.findall(r"^\[image/png, 30 x 20, \d+ bytes\]$", out, re.MULTILINE)) == 1


async def test_error_is_one_line_with_advice(chat_command: list[str], chat_settings: dict[str, str]) -> None:
    """A wrong key, an unreachable server, a missing key: one line each, and an exit code other than 0."""
    once = [*chat_command, "--once", "hi"]
    wrong_key = chat_settings | {"GODOTY_API_KEY": "gdt_no_such_key"}

    code, _, err = await _chat(once, wrong_key)
    assert code == 1
    assert re.fullmatch(r"Error: INVALID_API_KEY: .*check GODOTY_API_KEY.*\n", err)
    assert "no_such_key" not in err

    code, _, err = await _chat([*once, "--target", "127.0.0.1:1"], chat_settings)
    assert code == 1
    assert re.fullmatch(r"Error: UNAVAILABLE: .*is the server running at 127.0.0.1:1.*\n", err)


async def test_key_is_read_from_development_file(
    chat_command: list[str], chat_environment: dict[str, str], service: Service, session_id: str, tmp_path: Path
) -> None:
    """Without settings in the environment the chat asks .local/dev.env, and says so when it is missing."""
    command = [*chat_command, "--session", session_id, "--once", "hi"]

    code, _, err = await _chat(command, chat_environment, cwd=tmp_path)
    assert code == 2
    assert "no API key: set GODOTY_API_KEY" in err

    (tmp_path / ".local").mkdir()
    lines = f"GODOTY_LISTEN={service.target}\nGODOTY_API_KEY={service.api_key}\n"
    (tmp_path / ".local/dev.env").write_text(lines)
    code, out, _ = await _chat(command, chat_environment, cwd=tmp_path)
    assert code == 0
    assert "turn: $" in out


async def test_last_message_is_sent_again_or_edited_in_a_fork(
    chat_command: list[str], chat_settings: dict[str, str], session_id: str, tmp_path: Path
) -> None:
    """With what it carries; the session before is as it was, and a new one has nothing to send again."""
    picture = tmp_path / "picture"
    picture.write_bytes(png(30, 20))
    command = [*chat_command, "--model", "anthropic/claude-haiku-4.5", "--session"]
    typed = (
        f"/retry\n@sandbox plain text=first\n/attach {picture}\n@sandbox tool-loop calls=2\n/retry\n/edit other words\n"
    )

    code, out, err = await _chat([*command, session_id], chat_settings, typed)

    assert (code, err.strip()) == (0, "Error: there is no message to send again")
    forks = re.findall(r"^Session (\S+), forked from (\S+) before message 3\.$", out, re.MULTILINE)
    assert [origin for _, origin in forks] == [session_id, forks[0][0]]
    said = {}
    for each in (session_id, *(fork for fork, _ in forks)):
        _, shown, _ = await _chat([*command, each], chat_settings)
        said[each] = re.findall(r"^> (.*)$", shown, re.MULTILINE)
        assert len(re.findall(r"^\[image/png, 30 x 20, \d+ bytes\]$", shown, re.MULTILINE)) == 1
    first, loop = "@sandbox plain text=first", "@sandbox tool-loop calls=2"
    assert list(said.values()) == [[first, loop], [first, loop], [first, "other words"]]


class _TypedChat:
    """A chat on a pseudo-terminal, with typed input."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._keyboard, terminal = pty.openpty()
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command, env=environment, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)
        self._seen = ""

    def see(self, text: str) -> str:
        """Wait for a text and return what precedes it."""
        until = time.monotonic() + _TIMEOUT
        while text not in self._seen:
            ready, _, _ = select.select([self._keyboard], [], [], max(0, until - time.monotonic()))
            assert ready, f"{text!r} did not come: {self._seen!r}"
            self._seen += os.read(self._keyboard, 65536).decode(errors="replace")
        before, _, self._seen = self._seen.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def paste(self, text: str, *, bracketed: bool) -> None:
        """Pastes as a terminal does: between marks, if the program has asked for them."""
        self.type(f"\x1b[200~{text}\x1b[201~" if bracketed else text)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def interrupt_until_it_leaves(self) -> int:
        """Presses Ctrl-C, and again after a second: between its prompt and its wait for a key, readline misses one."""
        for _ in range(_TIMEOUT):
            self.interrupt()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1)
                break
        return self.leave()

    def leave(self) -> int:
        code = self._process.wait(timeout=_TIMEOUT)
        os.close(self._keyboard)
        return code

    def kill(self) -> None:
        self._process.kill()


async def test_ctrl_c_cancels_the_turn_and_then_leaves(
    chat_command: list[str], chat_environment: dict[str, str], fake_service: FakeAgentService
) -> None:
    """During an answer Ctrl-C ends the turn, on the server too; at the prompt it ends the chat."""
    cancelled = asyncio.Event()

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb.TurnEvent]:
        yield turn_pb.TurnEvent(sequence=1, turn_started=turn_pb.TurnStarted(session_id=request.session_id))
        yield turn_pb.TurnEvent(sequence=2, text_delta=turn_pb.TextDelta(text="endless"))
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    fake_service.script = script
    environment = chat_environment | {"GODOTY_LISTEN": fake_service.target, "GODOTY_API_KEY": fake_service.api_key}
    chat = _TypedChat(chat_command, environment)
    try:
        await asyncio.to_thread(chat.see, "> ")
        chat.type("go on\n")
        await asyncio.to_thread(chat.see, "endless")
        chat.interrupt()
        await asyncio.to_thread(chat.see, "Cancelled.")
        await asyncio.wait_for(cancelled.wait(), timeout=30)
        await asyncio.to_thread(chat.see, "> ")
        assert await asyncio.to_thread(chat.interrupt_until_it_leaves) == 0
    finally:
        chat.kill()


async def test_ctrl_d_leaves(chat_command: list[str], chat_settings: dict[str, str], session_id: str) -> None:
    """On a terminal a turn is shown as on a pipe, and Ctrl-D at the prompt ends the chat."""
    chat = _TypedChat([*chat_command, "--session", session_id], chat_settings)
    try:
        opening = await asyncio.to_thread(chat.see, "> ")
        assert "A new session" in opening
        chat.type("@sandbox plain text=hello\n")
        await asyncio.to_thread(chat.see, "turn: $")
        await asyncio.to_thread(chat.see, "> ")
        chat.type("\x04")
        assert await asyncio.to_thread(chat.leave) == 0
    finally:
        chat.kill()


async def test_pasted_lines_are_one_turn(
    chat_command: list[str], chat_environment: dict[str, str], fake_service: FakeAgentService
) -> None:
    """Six lines pasted into the prompt wait for Enter, and are sent as one text."""
    said: list[str] = []

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb.TurnEvent]:
        said.append(request.text)
        yield turn_pb.TurnEvent(sequence=1, turn_started=turn_pb.TurnStarted(session_id=request.session_id))
        yield turn_pb.TurnEvent(sequence=2, text_delta=turn_pb.TextDelta(text="understood"))
        yield turn_pb.TurnEvent(sequence=3, turn_finished=turn_pb.TurnFinished())

    fake_service.script = script
    environment = chat_environment | {
        "GODOTY_LISTEN": fake_service.target,
        "GODOTY_API_KEY": fake_service.api_key,
        "TERM": "xterm",
    }
    lines = [f"line {number}" for number in range(1, 7)]
    chat = _TypedChat(chat_command, environment)
    try:
        opening = await asyncio.to_thread(chat.see, "> ")
        chat.paste("".join(f"{line}\n" for line in lines), bracketed="\x1b[?2004h" in opening)
        await asyncio.to_thread(chat.see, "line 6")
        chat.type("\r")
        await asyncio.to_thread(chat.see, "understood")
        await asyncio.to_thread(chat.see, "> ")
        assert said == ["\n".join(lines)]
    finally:
        chat.kill()

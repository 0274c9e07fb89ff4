from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.clients.programs import CHAT, run
from tests.support.media import png

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.service import Service


@pytest.fixture
def chat_settings(service: Service, chat_environment: dict[str, str]) -> dict[str, str]:
    return chat_environment | {"GODOTY_LISTEN": service.target, "GODOTY_API_KEY": service.api_key}


async def _chat(
    arguments: list[str], environment: dict[str, str], typed: str = "", cwd: Path | None = None
) -> tuple[int, str, str]:
    return await run(CHAT, *arguments, environment=environment, typed=typed, cwd=cwd)


async def test_once_prints_answer_and_cost(chat_settings: dict[str, str], session_id: str) -> None:
    """One turn: the answer, then a line with the turn's cost, the session's and the served model."""
    command = ["--session", session_id, "--once", "@sandbox plain text=hello"]

    code, out, err = await _chat(command, chat_settings)

    assert (code, err) == (0, "")
    *answer, last = out.splitlines()
    assert "hello" in "\n".join(answer)
    assert re.fullmatch(r"turn: \$0\.\d+, \d+ tokens \| session: \$0\.\d+, 1 turn, \d+ tokens \| \S+/\S+", last)


async def test_reopened_session_shows_history_and_cost(chat_settings: dict[str, str], session_id: str) -> None:
    """Opened again, a session shows what was said and, as the last line, what it has cost so far."""
    command = ["--session", session_id]
    _, first, _ = await _chat([*command, "--once", "@sandbox plain text=hello"], chat_settings)

    code, out, err = await _chat(command, chat_settings)

    assert (code, err) == (0, "")
    assert "> @sandbox plain text=hello" in out
    session = re.search(r"session: (.*?) \|", first)
    assert session is not None
    assert out.rstrip().splitlines()[-1] == f"so far: {session[1]}"


async def test_piped_lines_are_turns(chat_settings: dict[str, str], session_id: str) -> None:
    """Each line of a pipe is a turn or a command, until /quit."""
    typed = "@sandbox tool-loop calls=3\n\n/metrics\n/sessions\n/help\n/quit\nnever said\n"

    code, out, err = await _chat(["--session", session_id], chat_settings, typed)

    assert (code, err) == (0, "")
    assert f"A new session, {session_id}." in out
    assert len(re.findall(r"^\[\w+\] .* → ok in .*$", out, re.MULTILINE)) == 2
    assert re.search(rf"^{session_id}: \$0\.\d+, 1 turn, \d+ tokens", out, re.MULTILINE)
    assert re.search(rf"^{session_id} +\$0\.\d+ ", out, re.MULTILINE)
    assert "/model [NAME]" in out
    assert "never said" not in out


async def test_file_is_attached_to_the_next_message(
    chat_settings: dict[str, str], session_id: str, tmp_path: Path
) -> None:
    """Its type and size are shown, now and in the history; a file that is none, or no attachment, is an error."""
    picture, text = tmp_path / "picture", tmp_path / "text.png"
    picture.write_bytes(png(30, 20))
    text.write_text("no picture")
    command = ["--session", session_id, "--model", "anthropic/claude-haiku-4.5"]
    typed = f"/attach {tmp_path}/missing\n/attach {text}\n/attach {picture}\nlook\nand now?\n"

    _, out, err = await _chat(command, chat_settings, typed)
    assert re.search(r"^attached to the next message: image/png, 30 x 20, \d+ bytes$", out, re.MULTILINE)
    assert "No such file" in err
    assert "ATTACHMENT_REJECTED" in err
    _, out, _ = await _chat(command, chat_settings)

    assert len(re.findall(r"^\[image/png, 30 x 20, \d+ bytes\]$", out, re.MULTILINE)) == 1


async def test_file_of_a_refused_turn_is_attached_to_the_next(
    chat_settings: dict[str, str], session_id: str, tmp_path: Path
) -> None:
    """The model takes no images: with another one, the file is still attached."""
    picture = tmp_path / "picture"
    picture.write_bytes(png(30, 20))
    command = ["--session", session_id, "--model", "deepseek/deepseek-v3.2"]

    _, _, err = await _chat(
        command, chat_settings, f"/attach {picture}\nlook\n/model anthropic/claude-haiku-4.5\nlook again\nand now?\n"
    )
    assert "INPUT_NOT_SUPPORTED" in err
    _, out, _ = await _chat(command, chat_settings)

    assert len(re.findall(r"^\[image/png, 30 x 20, \d+ bytes\]$", out, re.MULTILINE)) == 1


async def test_error_is_one_line_with_advice(chat_settings: dict[str, str]) -> None:
    """A wrong key, an unreachable server, a missing key: one line each, and an exit code other than 0."""
    once = ["--once", "hi"]
    wrong_key = chat_settings | {"GODOTY_API_KEY": "gdt_no_such_key"}

    code, _, err = await _chat(once, wrong_key)
    assert code == 1
    assert re.fullmatch(r"Error: INVALID_API_KEY: .*check GODOTY_API_KEY.*\n", err)
    assert "no_such_key" not in err

    code, _, err = await _chat([*once, "--target", "127.0.0.1:1"], chat_settings)
    assert code == 1
    assert re.fullmatch(r"Error: UNAVAILABLE: .*is the server running at 127.0.0.1:1.*\n", err)


async def test_key_is_read_from_development_file(
    chat_environment: dict[str, str], service: Service, session_id: str, tmp_path: Path
) -> None:
    """Without settings in the environment the chat asks .local/dev.env, and says so when it is missing."""
    command = ["--session", session_id, "--once", "hi"]

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
    chat_settings: dict[str, str], session_id: str, tmp_path: Path
) -> None:
    """With what it carries; the session before is as it was, and a new one has nothing to send again."""
    picture = tmp_path / "picture"
    picture.write_bytes(png(30, 20))
    command = ["--model", "anthropic/claude-haiku-4.5", "--session"]
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


async def test_standard_input_is_one_message(chat_settings: dict[str, str], service: Service, session_id: str) -> None:
    """With `--once -`, also its empty lines."""
    code, out, err = await _chat(
        ["--session", session_id, "--once", "-"], chat_settings, "@sandbox plain text=hello\n\n/more"
    )

    assert (code, err) == (0, "")
    assert out.startswith("hello")
    assert len(service.entries(session_id)) == 1


async def test_each_line_gives_a_line_of_json(chat_settings: dict[str, str], session_id: str) -> None:
    """With the answer, its cost and its calls; a failed turn is an object, too, and the exit code says so."""
    typed = "@sandbox tool-loop calls=2\n/help\n"
    command = ["--session", session_id, "--json"]

    code, out, err = await _chat(command, chat_settings, typed)
    assert (code, err) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert first["stop_reason"] == second["stop_reason"] == "END_TURN"
    assert first["session_id"] == session_id
    assert [each["name"] for each in first["tool_calls"]] == ["calculator"]
    costs = [Decimal(each["turn_totals"]["cost_usd"]) for each in (first, second)]
    assert Decimal(second["session_totals"]["cost_usd"]) == sum(costs)
    assert first["model_calls"][0]["served_model"]

    code, out, _ = await _chat([*command, "--model", "no/model"], chat_settings, "hi\n")
    assert code == 1
    assert json.loads(out)["error"]["reason"] == "UNKNOWN_MODEL"


async def test_session_is_exported(chat_settings: dict[str, str], session_id: str, tmp_path: Path) -> None:
    """As Markdown, into a new file; one that is there is not written over."""
    path = tmp_path / "session.md"
    typed = f"/export {path}\n@sandbox tool-loop calls=2\n/export {path}\n/export {path}\n"

    code, out, err = await _chat(["--session", session_id], chat_settings, typed)

    assert code == 0
    assert f"4 messages written to {path}" in out
    assert err.splitlines() == ["Error: there is nothing to export", f"Error: {path}: File exists"]
    written = path.read_text()
    assert written.startswith(f"# Session {session_id}\n\n$0.")
    assert "@sandbox tool-loop calls=2" in written
    assert "### Tool call: calculator" in written


async def test_fork_goes_on_in_another_session(chat_settings: dict[str, str], session_id: str) -> None:
    """With all messages; its cost begins at 0."""
    typed = "/fork\n@sandbox plain text=one\n/fork\n@sandbox plain text=two\n/fork nothing\n"

    _, out, err = await _chat(["--session", session_id], chat_settings, typed)

    assert f"forked from {session_id}." in out
    sessions = re.findall(r"session: \S+, (\d turns?), ", out)
    assert sessions == ["1 turn", "1 turn"]
    assert err.splitlines() == ["Error: there is nothing to fork", "Error: /fork takes a number"]

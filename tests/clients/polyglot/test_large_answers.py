"""The example `history` of each language: with default options, its client reads every message, however large."""

import json
import re
from typing import Any

import pytest

from tests.clients.polyglot.programs import Language, run
from tests.e2e.edge.test_response_sizes import keep, pages
from tests.support.caller import Caller

_WIDTHS = "aä€😀"  # characters of 1, 2, 3 and 4 bytes: no fixed number of bytes ends all pieces between characters
_INPUT = {"expression": "ä + €" * 50_000}
_RESULT = {"toolUseId": "t1", "status": "success", "content": [{"text": _WIDTHS * 1_200_000}]}
_BLOCKS: list[dict[str, Any]] = [
    {"reasoningContent": {"reasoningText": {"text": "thought " * 50_000}}},
    {"text": "short"},
    {"text": _WIDTHS * 100_000},
    {"toolUse": {"toolUseId": "t2", "name": "calculator", "input": _INPUT}},
]
_KEPT: list[tuple[list[dict[str, Any]], int]] = [  # contents, and how many bytes of text they have
    ([{"text": "x" * 5_000_000}], 5_000_000),
    ([{"toolResult": _RESULT}], 12_000_000),
    (_BLOCKS, 400_000 + 5 + 1_000_000 + len(json.dumps(_INPUT, ensure_ascii=False).encode())),
    *[([{"text": "y" * 250_000}], 250_000)] * 6,
]

Line = tuple[str, str, str]  # the number, the role and the bytes of a message, as an example prints them


@pytest.fixture
async def stored(caller: Caller) -> list[Line]:
    """A session with two messages of a turn and nine large ones; the lines that are to be printed of it."""
    await keep(caller, *(content for content, _ in _KEPT))
    found = await pages(caller)
    listed = [message for page in found for message in page.messages]
    assert len(found) > 4
    assert [each.number for each in listed if any(block.truncated for block in each.content)] == [3, 4, 5]
    asked, answered = (str(len(each.content[0].text.encode())) for each in listed[:2])
    large = [(str(n), "assistant" if n % 2 else "user", str(size)) for n, (_, size) in enumerate(_KEPT, start=3)]
    return [("1", "user", asked), ("2", "assistant", answered), *large]


async def test_history_has_every_byte_that_was_stored(language: Language, caller: Caller, stored: list[Line]) -> None:
    """All pages are read, and each message that is cut there is read whole, also what exceeds the default of gRPC."""
    code, out = await run(
        language.folder,
        *language.command("history"),
        GODOTY_LISTEN=caller.service.target,
        GODOTY_API_KEY=caller.service.api_key,
        GODOTY_SESSION="talk",
    )

    assert code == 0, out
    assert re.findall(r"^message: number=(\d+) role=(\w+) bytes=(\d+)$", out, re.MULTILINE) == stored
    assert re.findall(r"^messages: (\d+)$", out, re.MULTILINE) == [str(len(stored))]


async def test_history_of_an_unknown_session_fails(language: Language, caller: Caller) -> None:
    """The failure is printed, and the exit code is not 0."""
    code, out = await run(
        language.folder,
        *language.command("history"),
        GODOTY_LISTEN=caller.service.target,
        GODOTY_API_KEY=caller.service.api_key,
        GODOTY_SESSION="no-such-session",
    )

    assert code != 0
    assert "NOT_FOUND" in out
    assert "messages:" not in out

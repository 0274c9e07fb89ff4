"""Recorded and odd answers with bytes and values changed: the decoder raises nothing but our own errors.

4,000 inputs; GODOTY_TEST_LONG=1 decodes 200,000. GODOTY_TEST_SEED=n decodes the same ones again.
"""

import asyncio
import itertools
import json
import os
import random
import secrets
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest

from godoty_service.errors import GodotyError
from godoty_service.openrouter.decoding.chunk import AnswerLimits
from godoty_service.openrouter.decoding.sse import BodyDecoder, EventTooLarge
from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder
from godoty_service.openrouter.decoding.tool_calls import input_fault
from godoty_service.pricing.token_usage import from_openrouter
from tests.e2e.answers.gateway import CASES, DATA

SHORT, LONG = 4_000, 200_000
SEED = int(os.environ.get("GODOTY_TEST_SEED") or secrets.randbelow(2**32))
LARGEST = 24 * 1024  # of an input's source: the shapes are in the first of its bytes
VALUES: list[Any] = [None, True, 0, -1, 1.5, 10**30, "", "x", "\ud83d", "\ude00", [], [0], {}, {"a": [None]}, "null"]
VALUES += ["[DONE]", "{}", '{"a":', "error", "stop", "tool_calls", ["x", {"text": 7}], {"cost": 1}, "\x00", "9" * 40]
BYTES = [b"\n", b"\r", b"\r\n", b"\n\n", b"data: ", b"data:", b"{", b"}", b'"', b"\\ud83d", b"\xff", b"\xef\xbb\xbf"]
BYTES += [b"NaN", b"1e999", b"-Infinity", b"[DONE]", b"\\", b",", b"[", b"\x00", b"null", b"9" * 30, b'"usage":', b":"]
NAMES = ["usage", "error", "choices", "delta", "message", "content", "index", "cost", "type", "text", "refusal"]


def sources() -> list[bytes]:
    """Read the recordings and the cases; a response without its head."""
    paths = [*sorted((DATA / "recorded").glob("*_*.*")), *sorted(CASES.glob("[0-9]*"))]
    return [path.read_bytes().rpartition(b"\r\n\r\n0")[0][:LARGEST] or path.read_bytes()[:LARGEST] for path in paths]


class Mutator:
    """Changes answers: bytes anywhere, or values and keys within their JSON."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._sources = sources()

    def input(self) -> bytes:
        """Make an input."""
        draw = self._random
        data = draw.choice(self._sources)
        if draw.random() < 0.6:
            data = self._values(data)
        if draw.random() < 0.5:
            for _ in range(draw.randint(1, 4)):
                data = self._bytes(data)
        return data

    def cuts(self, data: bytes) -> list[bytes]:
        """Cut an input as a network would."""
        places = sorted({0, len(data), *(self._random.randrange(len(data) + 1) for _ in range(3))})
        return [data[start:end] for start, end in itertools.pairwise(places)]

    def _bytes(self, data: bytes) -> bytes:
        draw = self._random
        start = draw.randrange(len(data) + 1)
        end = min(len(data), start + draw.choice([0, 0, 1, 3, 40]))
        return data[:start] + draw.choice([*BYTES, b"", data[start : start + 200]]) + data[end:]

    def _values(self, data: bytes) -> bytes:
        """Change some of the lines' JSON; the whole, where it is a document."""
        draw = self._random
        lines = data.split(b"\n") if data.lstrip()[:1] != b"{" else [data]
        chosen = set(draw.sample(range(len(lines)), min(len(lines), 4)))
        return b"\n".join(self._line(line) if place in chosen else line for place, line in enumerate(lines))

    def _line(self, line: bytes) -> bytes:
        prefix = b"data: " if line.startswith(b"data: ") else b""
        try:
            body = json.loads(line[len(prefix) :])
        except ValueError:
            return line
        for _ in range(self._random.randint(1, 4)):
            self._change(body)
        return prefix + json.dumps(body).encode()

    def _change(self, body: Any) -> None:
        draw = self._random
        while isinstance(body, (dict, list)) and body:
            key = draw.choice(list(body)) if isinstance(body, dict) else draw.randrange(len(body))
            if draw.random() < 0.35 or not isinstance(body[key], (dict, list)) or not body[key]:
                self._replace(body, key)
                return
            body = body[key]

    def _replace(self, body: Any, key: Any) -> None:
        draw = self._random
        what = draw.random()
        if what < 0.6:
            body[key] = deepcopy(draw.choice(VALUES))
        elif what < 0.75 and isinstance(body, dict):
            body[draw.choice(["usage", "error", "choices", "delta", "message", "content", "index", "cost"])] = body.pop(
                key
            )
        elif what < 0.9 and isinstance(body, list):
            body.append(deepcopy(body[key]))
        else:
            del body[key]


def decode(pieces: list[bytes]) -> None:
    """Decode an input as the service does, and check what it would store, account and send again."""
    limits = AnswerLimits(message_bytes=20_000, text_bytes=15_000, tool_calls=4, tool_input_bytes=2_000)
    decoder, answer = BodyDecoder(), StreamDecoder(limits=limits)
    events: list[Any] = []
    for piece in pieces:
        with suppress(EventTooLarge):
            events += answer.read(decoder.feed(piece))
    events += (answer.read_whole if decoder.whole else answer.read)(decoder.end())
    if answer.final_usage is not None:
        from_openrouter(answer.final_usage)
    with suppress(GodotyError):
        events += answer.end()
    for text in (answer.generation_id, answer.served_model, answer.provider, answer.finish_reason):
        assert text is None or (text.encode() and len(text) <= 256)
    assert answer.error is None or isinstance(answer.error, GodotyError)
    json.dumps(events, ensure_ascii=False, allow_nan=False).encode()
    for event in events:
        use = event.get("contentBlockDelta", {}).get("delta", {}).get("toolUse")
        assert use is None or input_fault(json.loads(use["input"])) is None


async def decode_some(number: int, show: Callable[[str], None]) -> None:
    """Decode a number of inputs, yielding to the event loop between them."""
    mutator = Mutator(SEED)
    for place in range(number):
        data = mutator.input()
        pieces = mutator.cuts(data)
        try:
            decode(pieces)
        except Exception:
            show(f"GODOTY_TEST_SEED={SEED}, input {place}: {pieces!r}")
            raise
        if place % 100 == 0:
            await asyncio.sleep(0)


async def test_mutated_answers_raise_nothing_of_their_own() -> None:
    """A mutated input yields an answer or a GodotyError, and all of it can be stored and sent again."""
    await decode_some(SHORT, print)


@pytest.mark.long
async def test_many_mutated_answers_raise_nothing_of_their_own() -> None:
    """The same, for long."""
    await decode_some(LONG, print)

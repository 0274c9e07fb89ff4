"""Large answers: cut for the wire, kept as UTF-8, and ended with their cost where no document could hold them."""

import gzip
from decimal import Decimal

import pytest

from godoty_service.errors import TurnTooLarge
from godoty_service.metering.call import CallState, CostSource
from godoty_service.openrouter.answer import Answer
from godoty_service.openrouter.body import BodyDecoder
from godoty_service.openrouter.limits import AnswerLimits
from godoty_service.turns.events import TextDelta
from godoty_service.turns.log import merged
from tests.answers.conftest import Ask, Asked
from tests.answers.gateway import SAID, USAGE, chunk, response, stream

KIB = 1024
END = chunk({}, "stop", usage=USAGE)


def assert_paid(asked: Asked) -> None:
    """Check that the one request was billed."""
    (entry,) = asked.entries
    assert (entry.cost, entry.cost_source) == (Decimal("0.00012"), CostSource.BILLED)
    assert len(asked.gateway.requests) == 1


@pytest.mark.parametrize("letter", ["x", "ж", "😀"])
@pytest.mark.parametrize("kind", ["content", "reasoning"])
async def test_a_delta_of_5_mb_comes_in_small_messages(ask: Ask, letter: str, kind: str) -> None:
    """No message has more than 64 KiB of text; joined they are the answer."""
    text = letter * (5_000_000 // len(letter.encode()))
    asked = await ask(stream(chunk({kind: text}), chunk({"content": "."}), END), SAID)

    deltas = [each.text_delta.text or each.reasoning_delta.text for each in asked.turn.responses]
    assert max(len(each.encode()) for each in deltas) <= 64 * KIB
    assert asked.turn.text == (text if kind == "content" else "") + "."
    assert asked.turn.reasoning == ("" if kind == "content" else text)
    assert_paid(asked)


async def test_an_answer_of_3_million_cyrillic_letters_is_kept(ask: Ask) -> None:
    """6 MB of UTF-8 fit a document, and the next turn has them."""
    pieces = [chunk({"content": "ж" * 20_000}) for _ in range(150)]
    asked = await ask(stream(*pieces, END), SAID)

    assert len(asked.turn.text) == 3_000_000
    assert asked.turn.finished
    assert_paid(asked)
    assert (await asked.caller.converse("and now?")).text == "Done."
    assert "ж" * 3_000_000 in str(asked.gateway.requests[-1]["messages"])


@pytest.mark.parametrize("letter", ["\x01", "x"])
async def test_an_answer_that_no_document_holds_is_too_large_and_paid(ask: Ask, letter: str) -> None:
    """3 million control characters are 18 MB of JSON; 12 million letters outgrow the log. The session goes on."""
    pieces = [chunk({"content": letter * 100_000}) for _ in range(30 if letter == "\x01" else 120)]
    asked = await ask(stream(*pieces, END), SAID)

    assert asked.turn.failure is not None
    assert asked.turn.failure.reason == "TURN_TOO_LARGE"
    assert_paid(asked)
    assert (await asked.caller.converse("and now?")).text == "Done."


async def test_an_event_above_24_mib_is_too_large_and_paid(ask: Ask) -> None:
    """It is not asked for again."""
    asked = await ask(stream(chunk({"content": "x" * 25 * KIB * KIB}), END), SAID)

    assert asked.turn.failure is not None
    assert asked.turn.failure.reason == "TURN_TOO_LARGE"
    assert_paid(asked)


async def test_compressed_answer_is_decoded_in_bounded_pieces(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that expands a thousandfold is never in memory as a whole."""
    seen: list[int] = []
    feed = BodyDecoder._begin

    def begin(decoder: BodyDecoder, data: bytes) -> list[bytes]:
        seen.append(len(data))
        return feed(decoder, data)

    monkeypatch.setattr(BodyDecoder, "_begin", begin)
    bomb = b"HTTP/1.1 200 x\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(b"\n" * 64 * KIB * KIB + SAID)
    small = b"HTTP/1.1 200 x\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(SAID)
    asked = await ask(bomb)
    again = await ask(small)

    assert asked.turn.text == again.turn.text == "Done."
    assert max(seen) <= 256 * KIB


async def test_error_answer_above_its_bound_is_known_by_its_status(ask: Ask) -> None:
    """Its body is not read, so whether it cost something is left to reconciliation."""
    body = b'{"error": {"code": 402, "message": "' + b"x" * 2000 + b'"}}'
    asked = await ask(response(body, "application/json", status=402), max_error_bytes=1024)

    assert asked.turn.failure is not None
    assert asked.turn.failure.reason == "PROVIDER_ACCOUNT_REFUSED"
    (entry,) = asked.entries
    assert entry.state in {CallState.PENDING, CallState.UNRESOLVED}
    assert (entry.cost, entry.error_code) == (None, 402)


def test_a_message_is_bounded_with_all_its_parts() -> None:
    """Text, inputs of tools and reasoning details count together."""
    answer = Answer(limits=AnswerLimits(message_bytes=1000))
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a": "' + "x" * 600 + '"}'}}
    answer.take([chunk({"content": "x" * 600, "tool_calls": [call]}), END])

    with pytest.raises(TurnTooLarge):
        answer.end()


def test_merged_deltas_are_counted_in_bytes() -> None:
    """A reader that has fallen behind gets at most 64 KiB at a time, whatever the letters."""
    _, event = merged([TextDelta("ж" * 10_000)] * 10, 0)

    assert isinstance(event, TextDelta)
    assert 32 * KIB < len(event.text.encode()) <= 64 * KIB

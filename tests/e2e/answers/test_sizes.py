"""Large answers: split for the wire, persisted as UTF-8, and failed with their cost if no document can hold them."""

import gzip
from decimal import Decimal

import pytest

from godoty_service.errors import TurnTooLarge
from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from godoty_service.openrouter.decoding.chunk import AnswerLimits
from godoty_service.openrouter.decoding.sse import BodyDecoder
from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder
from godoty_service.turns.event_log.events import TextDelta
from godoty_service.turns.event_log.log import merged
from tests.e2e.answers.conftest import Outcome, RunTurn
from tests.e2e.answers.gateway import ANSWER, USAGE, chunk, response, stream

KIB = 1024
END = chunk({}, "stop", usage=USAGE)


def assert_paid(outcome: Outcome) -> None:
    """Check that the one request was billed."""
    (entry,) = outcome.entries
    assert (entry.cost, entry.cost_source) == (Decimal("0.00012"), CostSource.BILLED)
    assert len(outcome.gateway.requests) == 1


@pytest.mark.parametrize(("kind", "letter"), [("content", "😀"), ("reasoning", "ж")])
async def test_delta_of_5_mb_is_split_into_small_messages(run_turn: RunTurn, kind: str, letter: str) -> None:
    """No message exceeds 64 KiB of text; joined they are the answer."""
    text = letter * (5_000_000 // len(letter.encode()))
    outcome = await run_turn(stream(chunk({kind: text}), chunk({"content": "."}), END), ANSWER)

    deltas = [each.text_delta.text or each.reasoning_delta.text for each in outcome.turn.responses]
    assert max(len(each.encode()) for each in deltas) <= 64 * KIB
    assert outcome.turn.text == (text if kind == "content" else "") + "."
    assert outcome.turn.reasoning == ("" if kind == "content" else text)
    assert_paid(outcome)


async def test_answer_of_3_million_cyrillic_letters_is_persisted(run_turn: RunTurn) -> None:
    """6 MB of UTF-8 fit a document, and the next turn has them."""
    pieces = [chunk({"content": "ж" * 20_000}) for _ in range(150)]
    outcome = await run_turn(stream(*pieces, END), ANSWER)

    assert len(outcome.turn.text) == 3_000_000
    assert outcome.turn.finished
    assert_paid(outcome)
    assert (await outcome.caller.converse("and now?")).text == "Done."
    assert "ж" * 3_000_000 in str(outcome.gateway.requests[-1]["messages"])


@pytest.mark.parametrize("letter", ["\x01", "x"])
async def test_answer_beyond_document_size_is_too_large_and_paid(run_turn: RunTurn, letter: str) -> None:
    """3 million control characters are 18 MB of JSON; 12 million letters exceed the log. The session continues."""
    pieces = [chunk({"content": letter * 100_000}) for _ in range(30 if letter == "\x01" else 120)]
    outcome = await run_turn(stream(*pieces, END), ANSWER)

    assert outcome.turn.failure is not None
    assert outcome.turn.failure.reason == "TURN_TOO_LARGE"
    assert_paid(outcome)
    assert (await outcome.caller.converse("and now?")).text == "Done."


async def test_event_above_24_mib_is_too_large_and_paid(run_turn: RunTurn) -> None:
    """The request is not retried."""
    outcome = await run_turn(stream(chunk({"content": "x" * 25 * KIB * KIB}), END), ANSWER)

    assert outcome.turn.failure is not None
    assert outcome.turn.failure.reason == "TURN_TOO_LARGE"
    assert_paid(outcome)


async def test_compressed_answer_is_decoded_in_bounded_pieces(
    run_turn_here: RunTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that expands a thousandfold is never in memory as a whole."""
    seen: list[int] = []
    feed = BodyDecoder._begin

    def begin(decoder: BodyDecoder, data: bytes) -> list[bytes]:
        seen.append(len(data))
        return feed(decoder, data)

    monkeypatch.setattr(BodyDecoder, "_begin", begin)
    bomb = b"HTTP/1.1 200 x\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(b"\n" * 64 * KIB * KIB + ANSWER)
    small = b"HTTP/1.1 200 x\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(ANSWER)
    outcome = await run_turn_here(bomb)
    again = await run_turn_here(small)

    assert outcome.turn.text == again.turn.text == "Done."
    assert max(seen) <= 256 * KIB


async def test_error_answer_above_its_bound_is_known_by_its_status(run_turn: RunTurn) -> None:
    """Its body is not read, so its cost is deferred to reconciliation."""
    body = b'{"error": {"code": 402, "message": "' + b"x" * 2000 + b'"}}'
    outcome = await run_turn(response(body, "application/json", status=402), max_error_bytes=1024)

    assert outcome.turn.failure is not None
    assert outcome.turn.failure.reason == "PROVIDER_ACCOUNT_REFUSED"
    (entry,) = outcome.entries
    assert entry.state in {CallState.PENDING, CallState.UNRESOLVED}
    assert (entry.cost, entry.error_code) == (None, 402)


def test_message_size_includes_all_its_parts() -> None:
    """Text, inputs of tools and reasoning details count together."""
    decoder = StreamDecoder(limits=AnswerLimits(message_bytes=1000))
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a": "' + "x" * 600 + '"}'}}
    decoder.add_chunks([chunk({"content": "x" * 600, "tool_calls": [call]}), END])

    with pytest.raises(TurnTooLarge):
        decoder.end()


def test_merged_deltas_are_bounded_in_bytes() -> None:
    """A reader that has fallen behind gets at most 64 KiB at a time, in any script."""
    _, event = merged([TextDelta("ж" * 10_000)] * 10, 0)

    assert isinstance(event, TextDelta)
    assert 32 * KIB < len(event.text.encode()) <= 64 * KIB

"""Exports that carry the bytes of attachments, and imports that store them: a person's data can be handed over."""

import base64
import json
from collections.abc import Callable, Sequence

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.conftest import Start
from tests.e2e.forks.conftest import Forker
from tests.e2e.forks.test_exports import LONGEST, lines_of, load, message
from tests.support.caller import failure_of
from tests.support.media import png
from tests.support.service import Service, soon

BIG = 1_000_000  # bytes: several pieces in the database, and more lines


async def export(forker: Forker, **fields: bool) -> list[str]:
    """Export a session with the bytes of its attachments."""
    request = pb.ExportSessionRequest(session_id="talk", **({"include_attachments": True} | fields))
    call = forker.caller.stub.ExportSession(request, metadata=forker.service.metadata, timeout=90)
    return [each.line async for each in call]


def carried(lines: Sequence[str]) -> dict[str, bytes]:
    """Return the bytes that lines carry, by the ids of the attachments."""
    found: dict[str, bytes] = {}
    for each in map(json.loads, lines):
        if piece := each.get("attachment_data"):
            name = piece["attachment"]["attachment_id"]
            found[name] = found.get(name, b"") + base64.b64decode(piece["data"])
    return found


def kinds(lines: Sequence[str]) -> list[str]:
    """Return the kinds of lines, each once in a row."""
    found: list[str] = []
    for (kind,) in map(json.loads, lines):
        if found[-1:] != [kind]:
            found.append(kind)
    return found


def data_line(attachment_id: str, data: bytes) -> str:
    """Return a line with bytes of an attachment."""
    piece = {"attachment": {"attachment_id": attachment_id}, "data": base64.b64encode(data).decode()}
    return json.dumps({"attachment_data": piece})


async def test_another_tenant_gets_the_attachments(forker: Forker, fork_at: Callable[[Service], Forker]) -> None:
    """Under ids of its own, where the messages name them; what it sends to the provider is the same."""
    small, large = png(), png(size=BIG)
    await forker.converse("look", small, large)
    first = [each.attachment.attachment_id for each in (await forker.caller.messages())[0].content[1:]]
    await forker.converse("again", first[0])
    lines = await export(forker)
    stranger = fork_at(forker.service.another_tenant())
    await load(stranger, lines, session_id="copy")
    copied = [each.attachment for each in (await stranger.caller.messages("copy"))[0].content[1:]]
    await stranger.converse("and now?", session_id="copy")
    await forker.converse("and now?")

    assert all(len(each.encode()) <= LONGEST for each in lines)
    assert carried(lines) == dict(zip(first, (small, large), strict=True))
    assert kinds(lines)[:3] == ["begin", "attachment_data", "message"]
    assert kinds(lines).count("attachment_data") == 1  # each is carried once, before the first message that names it
    assert not {each.attachment_id for each in copied} & set(first)
    assert [(await stranger.download(each.attachment_id))[1] for each in copied] == [small, large]
    assert stranger.seen("copy")[-1] == forker.seen()[-1]
    await stranger.caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="copy"))
    assert stranger.documents() == (0, 0)


async def test_tenant_that_has_an_attachment_does_not_store_it_again(forker: Forker) -> None:
    """The copy names the same one; without the field no line has bytes."""
    await forker.converse("look", png())
    assert carried(await export(forker, include_attachments=False)) == {}
    before = forker.documents()
    await load(forker, await export(forker), session_id="copy")

    assert forker.documents() == before
    originals, copied = await forker.caller.messages(), await forker.caller.messages("copy")
    assert [each.content for each in copied] == [each.content for each in originals]


async def test_bytes_that_cannot_be_stored_fail_the_import(forker: Forker) -> None:
    """With the error of an upload; nothing of it remains."""
    image = {"attachment": {"attachment_id": "att_1", "media_type": "image/png"}}
    good, bad = data_line("att_0", png()), data_line("att_1", b"no image")
    begin, *rest = lines_of(message("USER", {"text": "look"}, image))
    failure = await failure_of(load(forker, [begin, good, bad, *rest]))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ATTACHMENT_REJECTED")
    nameless = await failure_of(load(forker, [begin, data_line("", png()), *rest]))
    assert "line 2 has bytes of no attachment" in nameless.fields["lines"]

    await soon(lambda: forker.stored() == {"sessions": 0, "messages": 0})
    assert forker.documents() == (0, 0)


async def test_bytes_of_an_import_are_bounded(
    serve: Start, fork_at: Callable[[Service], Forker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SESSION_TOO_LARGE, although each attachment may be stored, and the lines without them are few."""
    forker = fork_at(await serve())
    monkeypatch.setattr("godoty_service.session_copies.imported_attachments._MAX_BYTES", 250_000)
    monkeypatch.setattr("godoty_service.rpc.session_copies.imports._MAX_BYTES", 10_000)
    begin, *rest = lines_of(message("USER", {"text": "look"}))
    one, other = data_line("att_1", png(size=100_000)), data_line("att_2", png(size=160_000))
    failure = await failure_of(load(forker, [begin, one, other, *rest]))
    assert (failure.reason, failure.metadata) == ("SESSION_TOO_LARGE", {"limit": "250000"})
    assert await load(forker, [begin, one, *rest])


async def test_pieces_between_the_content_of_a_message_end_it(forker: Forker) -> None:
    """As the next message would: a content line that follows belongs to none."""
    begin, first, content, end = lines_of(message("USER", {"text": "look"}))
    failure = await failure_of(load(forker, [begin, first, data_line("att_1", png()), content, end]))
    assert "line 4 belongs to no message" in failure.fields["lines"]


async def test_attachment_that_is_too_large_is_not_awaited(serve: Start, fork_at: Callable[[Service], Forker]) -> None:
    """ATTACHMENT_REJECTED as soon as its pieces have too many bytes."""
    forker = fork_at(await serve(attachment_bytes=64 * 1024))
    begin, *_ = lines_of()
    failure = await failure_of(load(forker, [begin, *[data_line("att_1", b"a" * 40_000)] * 2]))
    assert failure.reason == "ATTACHMENT_REJECTED"

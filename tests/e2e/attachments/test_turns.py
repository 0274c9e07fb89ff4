"""Turns with attachments: what the model gets, what messages name, and what a turn that fails leaves."""

from collections.abc import Callable
from decimal import Decimal

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import attachment_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.bootstrap.components import open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.tenancy.policies import Policy
from tests.conftest import Start, StartProcess
from tests.e2e.attachments.conftest import BLIND, VISION, Attacher, digest, notes
from tests.support.history import assert_valid_history
from tests.support.leases import LONG_LEASE, LONG_LEASE_ENVIRONMENT, end_leases
from tests.support.media import gif, jpeg, pdf, png, webp
from tests.support.service import Service, soon

Attach = Callable[[Service], Attacher]


async def test_uploaded_and_inline_images_reach_the_model(attacher: Attacher) -> None:
    """In the order of the request, byte for byte; the message names them, without their bytes."""
    stored, inline = png(640, 480, size=900_000), jpeg(30, 20)
    uploaded = await attacher.upload(stored)
    turn = await attacher.converse("What is this?", uploaded.attachment_id, inline)
    assert turn.finished
    assert attacher.seen() == [[digest(stored), digest(inline)]]
    asked, answered = await attacher.caller.messages()
    text, first, second = asked.content

    assert_valid_history([asked, answered])
    assert text.text == "What is this?"
    assert first.attachment == uploaded
    assert (first.attachment.media_type, first.attachment.size_bytes) == ("image/png", len(stored))
    assert (second.attachment.media_type, second.attachment.width, second.attachment.height) == ("image/jpeg", 30, 20)
    assert asked.ByteSize() < 1000
    assert await attacher.download(uploaded.attachment_id) == (uploaded, stored)
    assert (await attacher.download(second.attachment.attachment_id))[1] == inline
    read = attacher.caller.stub.ReadMessage(
        pb.ReadMessageRequest(session_id="talk", number=1), metadata=attacher.service.metadata
    )
    assert [each.content.WhichOneof("block") async for each in read] == ["text", "attachment", "attachment"]


async def test_every_format_is_taken(attacher: Attacher) -> None:
    """PNG, JPEG, WebP, GIF and PDF, by their content."""
    files = [png(), jpeg(9, 9), webp(9, 9), gif(9, 9), pdf(2)]
    turn = await attacher.converse("look", *files)
    assert turn.finished
    assert attacher.seen() == [[digest(each) for each in files]]
    (request,) = attacher.service.requests("talk")

    assert request["plugins"] == [{"id": "file-parser", "pdf": {"engine": "cloudflare-ai"}}]


async def test_later_turn_on_another_server_sees_the_same_bytes(
    attacher: Attacher, serve: Start, attach: Attach
) -> None:
    """The messages that name them are its history, and its requests carry them."""
    data = png(size=2_000_000)
    await attacher.converse("look", (await attacher.upload(data)).attachment_id)
    other = await serve(database=attacher.service.database.name)
    turn = await attach(attacher.service.at(other.target)).converse("and again")

    assert turn.finished
    assert attacher.seen() == [[digest(data)]] * 2


async def test_calls_of_a_loop_carry_the_image_each(attacher: Attacher) -> None:
    """And so does a retry of a request."""
    data = png(size=1_000_000)
    uploaded = await attacher.upload(data)
    await attacher.converse("@sandbox tool-loop calls=3 tool=calculator", uploaded.attachment_id)
    assert attacher.seen() == [[digest(data)]] * 3
    turn = await attacher.converse(
        "@sandbox error-before status=503 times=1 retry_after=0", uploaded.attachment_id, session_id="again"
    )

    assert turn.finished
    assert attacher.seen("again") == [[digest(data)]] * 2


async def test_model_that_takes_no_image_is_refused(attacher: Attacher) -> None:
    """Before anything is sent, whether it is the model or a fallback; session and upload are as before."""
    uploaded = await attacher.upload(png())
    for models in ({"model": BLIND}, {"model": VISION, "fallback_models": [BLIND]}):
        turn = await attacher.converse("look", uploaded.attachment_id, **models)
        assert turn.kinds == []
        assert turn.failure is not None
        assert (turn.failure.code, turn.failure.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "INPUT_NOT_SUPPORTED",
        )
        assert turn.failure.metadata == {"model": BLIND, "input": "image"}
    assert attacher.service.session("talk") is None
    assert attacher.service.entries("talk") == []

    assert (await attacher.converse("look", uploaded.attachment_id)).finished


async def test_session_goes_on_with_a_model_that_takes_no_image(attacher: Attacher) -> None:
    """It sees a note in place of an earlier image; back with the first model, the image is there again."""
    data = png()
    await attacher.converse("look", data)
    for model in (BLIND, VISION):
        assert (await attacher.converse("and now?", model=model)).finished
    _, blind, seeing = attacher.service.requests("talk")

    assert attacher.seen() == [[digest(data)], [], [digest(data)]]
    assert len(notes(blind)) == 1
    assert "the model does not take it" in notes(blind)[0]
    assert notes(seeing) == []


async def test_document_needs_no_model_that_takes_files(attacher: Attacher) -> None:
    """It is parsed to text."""
    turn = await attacher.converse("read", pdf(3), model=BLIND)

    assert turn.finished


async def test_older_images_are_left_out_of_a_full_request(serve: Start, attach: Attach) -> None:
    """The newest are sent up to the bytes that a request may carry; the model sees notes in place of others."""
    attacher = attach(await serve(attachment_request_bytes=1024 * 1024))
    files = [png(size=400_000) for _ in range(3)]
    for number, data in enumerate(files):
        await attacher.converse(str(number), (await attacher.upload(data)).attachment_id)
    *_, last = attacher.service.requests("talk")

    assert attacher.seen()[-1] == [digest(each) for each in files[1:]]
    assert len(notes(last)) == 1


async def test_summary_has_no_images(serve: Start, attach: Attach) -> None:
    """Neither bytes nor tokens of an image: it is of what was said."""
    attacher = attach(await serve(history_messages=4, history_summary=True))
    await attacher.converse("look", png(size=300_000))
    for number in range(4):
        await attacher.converse(f"and {number}")
    sides = [each for each in attacher.service.entry_documents("talk") if each["purpose"] == "summary"]
    sizes = [each.usage.input_tokens for each in attacher.service.entries("talk") if each.usage]

    assert sides
    assert all(size is not None and size < 20_000 for size in sizes)


async def test_refused_turn_leaves_the_upload_as_it_was(attacher: Attacher) -> None:
    """A turn that its budget refuses can be sent again with the same attachment; what came inline is not stored."""
    uploaded = await attacher.upload(png())
    async with open_components(attacher.service.backends.settings(attacher.service.database.name)) as components:
        budget = Budget(window=BudgetWindow.DAY, limit=Decimal("0.000001"), hard=True)
        await components.tenancy.policies.set(attacher.service.tenant_id, Policy(budgets=(budget,)))
    turn = await attacher.converse("look", uploaded.attachment_id, png())
    assert turn.failure is not None
    assert turn.failure.reason == "BUDGET_SPENT"
    await soon(lambda: attacher.documents() == (1, 1))
    (document,) = attacher.service.database["attachments"].find({"tenant_id": attacher.service.tenant_id})

    assert document["sessions"] == []
    assert document["expire_time"]


async def test_request_id_replays_a_turn_with_attachments(attacher: Attacher) -> None:
    """Also once what it named is deleted; other bytes are another request."""
    data = png()
    first = await attacher.converse("look", data, request_id="once")
    again = await attacher.converse("look", data, request_id="once")
    assert (again.text, again.finished) == (first.text, first.finished)
    assert {each.turn_id for each in again.responses} == {first.responses[0].turn_id}
    assert attacher.documents() == (1, 1)
    other = await attacher.converse("look", png(), request_id="once")

    assert other.failure is not None
    assert other.failure.reason == "REQUEST_ID_REUSED"
    assert attacher.documents() == (1, 1)


async def test_dead_servers_turn_keeps_its_attachments(
    serve: Start, serve_process: StartProcess, attach: Attach
) -> None:
    """A server is killed before the message is stored: the turn that follows completes it with what it names."""
    process, service = await serve_process(**LONG_LEASE_ENVIRONMENT)
    attacher = attach(service)
    data = png()
    uploaded = await attacher.upload(data)
    call = attacher.caller.start(
        "@sandbox plain tokens=9 first_delay_ms=600000",
        model=VISION,
        attachments=[attachment_pb2.AttachmentSource(attachment_id=uploaded.attachment_id)],
        on_disconnect=turn_pb.ON_DISCONNECT_CONTINUE,
    )
    await soon(lambda: len(attacher.service.entries("talk")) == 1)
    assert service.database["messages"].count_documents({"tenant_id": service.tenant_id}) == 0
    await process.kill()
    call.cancel()
    end_leases(service.database, process.replica_id)
    other = await serve(database=service.database.name, lease=LONG_LEASE)
    later = attach(service.at(other.target))
    turn = await later.converse("hello", on_busy=turn_pb.ON_BUSY_WAIT)
    messages = await later.caller.messages()

    assert turn.finished
    assert_valid_history(messages)
    assert messages[0].content[1].attachment.attachment_id == uploaded.attachment_id
    assert later.seen()[-1] == [digest(data)]


async def test_at_most_ten_attachments_and_a_mebibyte_inline(attacher: Attacher) -> None:
    """Each once; another number, size, or the same twice is INVALID_FIELD."""
    uploaded = (await attacher.upload(png())).attachment_id
    for attachments in ([png() for _ in range(11)], [png(size=600_000)] * 2, [uploaded] * 2, [b""]):
        turn = await attacher.converse("look", *attachments)
        assert turn.failure is not None
        assert turn.failure.reason == "INVALID_FIELD"
        assert all(each.startswith("attachments") for each in turn.failure.fields)
    assert (await attacher.converse("look", *[png() for _ in range(10)])).finished


async def test_session_outlives_a_document_that_the_provider_refuses(attacher: Attacher) -> None:
    """Later turns send a note in its place; the conversation names it, and it is deleted with the session."""
    refused, seen = b"scan\n" + pdf(1), png()  # the sandbox takes no document that begins with other bytes
    assert (await attacher.converse("look", seen)).finished
    turn = await attacher.converse("read", refused)
    assert turn.failure is not None
    assert turn.failure.reason == "PROVIDER_REJECTED_REQUEST"
    turn = await attacher.converse("and now?")
    assert turn.finished, turn.failure
    *_, last = attacher.service.requests("talk")

    assert attacher.seen()[-1] == [digest(seen)]
    assert [each.partition(": ")[2] for each in notes(last)] == [
        "left out, because the provider refused the request that had it.]"
    ]
    assert "read" in str(last["messages"])
    messages = await attacher.caller.messages()
    assert_valid_history(messages)
    (named,) = [each.attachment for each in messages[2].content if each.HasField("attachment")]
    assert (await attacher.download(named.attachment_id))[1] == refused
    await attacher.caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk"))
    assert attacher.documents() == (0, 0)

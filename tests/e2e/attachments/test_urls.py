"""Attachments at URLs: fetched once, from permitted addresses alone, within bounds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from godoty.v1 import attachment_pb2
from godoty.v1 import turn_pb2 as turn_pb

from tests.conftest import Start
from tests.e2e.attachments.conftest import BLIND, VISION, Attacher, digest
from tests.support.caller import Turn
from tests.support.media import png
from tests.support.service import Service, soon
from tests.support.web import Web, page, redirect

Attach = Callable[[Service], Attacher]
LOCAL = {"attachment_networks": "127.0.0.1/32"}


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """A web server, whose second address is not permitted."""
    async with Web() as server:
        yield server


async def look(attacher: Attacher, url: str, *, model: str = VISION, **fields: Any) -> Turn:
    """Run a turn with a file at a URL."""
    source = attachment_pb2.AttachmentSource(url=url)
    return await attacher.caller.converse("look", attachments=[source], model=model, **fields)


def refused(turn: Turn) -> tuple[str, str]:
    """Return the reason and the problem of a turn that was refused."""
    assert turn.failure is not None, turn.kinds
    return turn.failure.reason, turn.failure.metadata.get("problem", "")


async def test_file_is_fetched_once(serve: Start, attach: Attach, web: Web) -> None:
    """After redirects, without a credential; later turns send what was stored."""
    attacher, data = attach(await serve(**LOCAL)), png(size=2_000_000)
    web.answers |= {"/old": redirect("/picture"), "/picture": page(data, content_type="text/html")}
    assert (await look(attacher, web.url("/old"))).finished
    assert (await attacher.converse("again")).finished
    assert web.paths == ["/old", "/picture"]
    assert not any(
        line.startswith(("authorization", "cookie", "traceparent")) for each in web.requests for line in each
    )
    (asked, *_) = await attacher.caller.messages()

    assert attacher.seen() == [[digest(data)]] * 2
    assert (await attacher.download(asked.content[1].attachment.attachment_id))[1] == data


async def test_address_that_is_not_permitted_is_not_asked(
    serve: Start, attach: Attach, attacher: Attacher, web: Web
) -> None:
    """Neither by the URL nor by a redirect; by default nothing of this host is."""
    local, public = attach(await serve(**LOCAL)), attacher
    web.answers |= {"/there": redirect(web.url("/picture", "127.0.0.2")), "/picture": page(png())}
    for each, url, reason in (
        (local, web.url("/picture", "127.0.0.2"), "INVALID_FIELD"),
        (local, web.url("/there"), "ATTACHMENT_REJECTED"),
        (public, web.url("/picture"), "INVALID_FIELD"),
        (public, f"https://localhost:{web.port}/picture", "ATTACHMENT_REJECTED"),
        (public, "https://169.254.169.254/latest", "INVALID_FIELD"),
        (public, "file:///etc/passwd", "INVALID_FIELD"),
    ):
        assert refused(await look(each, url))[0] == reason, url
        assert each.documents() == (0, 0)
    assert web.paths == ["/there"]


async def test_file_that_is_none_is_refused(serve: Start, attach: Attach, web: Web) -> None:
    """No answer of success, another type, too many bytes or redirects: nothing is stored."""
    attacher = attach(await serve(attachment_bytes=64 * 1024, **LOCAL))
    web.answers |= {
        "/text": page(b"hello"),
        "/large": page(png(size=100_000)),
        "/error": page(png(), status="500 Oops"),
        "/packed": page(png(), headers="Content-Encoding: gzip\r\n"),
        "/loop": redirect("/loop"),
        "/away": redirect("ftp://127.0.0.1/"),
    }
    for path, problem in {
        "/text": "type",
        "/large": "size",
        "/error": "url",
        "/missing": "url",
        "/packed": "url",
        "/loop": "url",
        "/away": "url",
    }.items():
        assert refused(await look(attacher, web.url(path))) == ("ATTACHMENT_REJECTED", problem), path
    assert refused(await look(attacher, "http://127.0.0.1:1/")) == ("ATTACHMENT_REJECTED", "url")
    assert web.paths.count("/loop") == 6
    assert attacher.documents() == (0, 0)
    assert attacher.service.session("talk") is None


async def test_turn_that_is_refused_leaves_no_file(serve: Start, attach: Attach, web: Web) -> None:
    """Its model does not take it; one that is cancelled while the file arrives asks no more."""
    attacher = attach(await serve(**LOCAL))
    web.answers |= {"/picture": page(png()), "/slow": web.hang}
    assert refused(await look(attacher, web.url("/picture"), model=BLIND))[0] == "INPUT_NOT_SUPPORTED"
    await soon(lambda: attacher.documents() == (0, 0))
    source = attachment_pb2.AttachmentSource(url=web.url("/slow"))
    call = attacher.caller.start("look", model=VISION, attachments=[source])
    reading = asyncio.ensure_future(anext(aiter(call)))
    await soon(lambda: web.waiting == 1)
    call.cancel()
    reading.cancel()
    await soon(lambda: web.waiting == 0)

    assert attacher.documents() == (0, 0)
    assert (await look(attacher, web.url("/picture"), on_busy=turn_pb.ON_BUSY_WAIT)).finished

"""Fetching documents from a real web server: what may be requested, what is a text, and where it ends."""

import asyncio
import gzip
import ipaddress
from collections.abc import AsyncIterator

import httpx2
import pytest

from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.outbound.hosts import HostPattern, read_hosts
from godoty_service.agents.outbound.pool import Network
from godoty_service.agents.tools.http_fetch import TENANT, Fetcher, FetchLimits, http_fetch
from godoty_service.agents.tools.outcomes import ToolRefused, ToolTimedOut
from tests.support.service import soon
from tests.support.web import Web, page, redirect

_CERTIFICATES = httpx2.create_ssl_context()
_LIMIT = 1000  # bytes
_SHARE = 2  # requests of a tenant at the same time


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """A web server on this machine."""
    async with Web() as started:
        yield started


class Tool:
    """The tool, with the settings of a test."""

    def __init__(self, hosts: str, *, networks: tuple[str, ...] = ("127.0.0.1/32",), seconds: float = 30.0) -> None:
        rules = AddressRules([ipaddress.ip_network(each) for each in networks])
        network = Network(rules=rules, certificates=_CERTIFICATES)
        limits = FetchLimits(seconds=seconds, max_bytes=_LIMIT, connections=_SHARE)
        self.fetcher = Fetcher(network, read_hosts(hosts), limits)
        self._tool = http_fetch(self.fetcher)
        self.error: BaseException | None = None  # of the last call

    async def get(self, url: str, *, tenant_id: str = "tnt") -> tuple[bool, str]:
        """Return whether a call succeeded, and what the model sees."""
        use = {"toolUseId": "1", "name": "http_fetch", "input": {"url": url}}
        state = {"agent": None, TENANT: tenant_id}
        (event,) = [each async for each in self._tool.stream(use, state)]  # type: ignore[arg-type] # a tool use
        self.error = event.exception
        (content,) = event["tool_result"]["content"]
        return event["tool_result"]["status"] == "success", content["text"]


@pytest.fixture
async def tool(web: Web) -> AsyncIterator[Tool]:
    """A tool that may request the web server, by its address alone."""
    made = Tool(f"127.0.0.1:{web.port}")
    yield made
    await made.fetcher.aclose()


async def test_text_is_fetched(tool: Tool, web: Web) -> None:
    """By GET, without anything of the caller; the model sees where it came from."""
    web.answers["/a?b=c"] = page("Grüße".encode(), content_type="text/plain; charset=utf-8")

    assert await tool.get(web.url("/a?b=c#part")) == (True, f"{web.url('/a?b=c#part')} (text/plain)\n\nGrüße")

    (lines,) = web.requests
    assert lines[0] == "GET /a?b=c HTTP/1.1"
    assert [line.partition(":")[0] for line in lines[1:]] == ["host", "accept", "accept-encoding", "user-agent"]


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("application/json", b'{"a": 1}', '{"a": 1}'),
        ("application/problem+json; charset=UTF-8", b"{}", "{}"),
        ('TEXT/HTML; charset="ISO-8859-1"', b"caf\xe9", "café"),
        ("text/plain", b"caf\xe9", "caf\ufffd"),
        ("text/plain; charset=zip", b"plain", "plain"),
        ("text/plain; charset=utf-16", "wide".encode("utf-16"), "wide"),
    ],
)
async def test_types_and_encodings_of_text(tool: Tool, web: Web, content_type: str, body: bytes, text: str) -> None:
    """Encodings that are none of text count as UTF-8; what is wrong in them is replaced."""
    web.answers["/"] = page(body, content_type=content_type)

    succeeded, shown = await tool.get(web.url("/"))

    assert succeeded
    assert shown.partition("\n\n")[2] == text


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (page(b"", status="404 Not Found"), "HTTP 404"),
        (page(b"", status="304 Not Modified"), "HTTP 304"),
        (page(b"\x89PNG", content_type="image/png"), "no text: its type is image/png"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", "its type is not stated"),
        (page(gzip.compress(b"0" * 10_000_000), headers="Content-Encoding: gzip\r\n"), "compresses"),
        (b"nonsense\r\n\r\n", "broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\na", "broke"),
        (redirect("ftp://127.0.0.1/"), "no URL of HTTP"),
        (redirect("file:///etc/passwd"), "no URL of HTTP"),
        (redirect("http://[::1"), "no URL of HTTP"),
    ],
)
async def test_answer_that_is_no_text_is_an_error(tool: Tool, web: Web, answer: bytes, part: str) -> None:
    """The model sees why."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    web.answers["/"] = send

    succeeded, shown = await tool.get(web.url("/"))

    assert (succeeded, part in shown) == (False, True), shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/path",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://user:secret@127.0.0.1:PORT/",
        "http://127.0.0.1:PORT@example.com/",
        "http://example.com\\@127.0.0.1:PORT/",
        "http://127.0.0.1/",
        "http://localhost:PORT/",
        "http://127.0.0.1.example.com:PORT/",
        "http://127.0.0.1:PORT/a b",
        "http://127.0.0.1:PORT/\r\nX: y",
        "http://127.0.0.1:PORT/ü",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://[::1%25lo]:PORT/",
        "http://127.0.0.1:PORT/" + "a" * 2048,
    ],
)
async def test_other_urls_are_refused(tool: Tool, web: Web, url: str) -> None:
    """Other hosts, ports and schemes, users, and what readers of URLs understand in different ways."""
    succeeded, shown = await tool.get(url.replace("PORT", str(web.port)))

    assert not succeeded
    assert isinstance(tool.error, ToolRefused)
    assert len(shown) < 500
    assert web.requests == []


async def test_redirects_are_followed_to_the_fifth(tool: Tool, web: Web) -> None:
    """The model sees the last URL; one redirect more is an error."""
    for number in range(7):
        web.answers[f"/{number}"] = redirect(f"/{number + 1}")
    web.answers["/7"] = page(b"there")

    assert await tool.get(web.url("/2")) == (True, f"{web.url('/7')} (text/plain)\n\nthere")
    assert await tool.get(web.url("/1")) == (False, "Error: The server redirects more than 5 times.")


async def test_redirect_to_another_host_is_refused(tool: Tool, web: Web) -> None:
    """Each URL on the way must be one of a permitted host."""
    web.answers["/"] = redirect(web.url("/secret", host="localhost"))

    succeeded, shown = await tool.get(web.url("/"))

    assert not succeeded
    assert "The host localhost" in shown
    assert web.paths == ["/"]


@pytest.mark.parametrize("host", ["127.0.0.2", "[::ffff:127.0.0.2]", "2130706434", "0x7f.2"])
async def test_address_is_checked_for_each_redirect(web: Web, host: str) -> None:
    """All hosts are permitted, but of this machine's addresses one alone."""
    tool = Tool(f"*:{web.port}")
    web.answers["/"] = redirect(web.url("/secret", host=host))

    for url in (web.url("/"), web.url("/", host=host)):
        succeeded, shown = await tool.get(url)

        assert not succeeded
        assert isinstance(tool.error, ToolRefused)
        assert "address is not permitted" in shown
    assert web.paths == ["/"]
    await tool.fetcher.aclose()


async def test_http_needs_a_network_of_the_operator(web: Web) -> None:
    """Without one nothing is requested unencrypted, nor from this machine."""
    tool = Tool("*", networks=())

    for url in (web.url("/"), "http://93.184.216.34/", f"https://127.0.0.1:{web.port}/"):
        assert not (await tool.get(url))[0]
    assert web.requests == []
    await tool.fetcher.aclose()


async def test_large_document_is_cut(tool: Tool, web: Web) -> None:
    """The model gets the beginning without half a character, and a note; the rest is not read."""
    body = b"a" + "é".encode() * 600

    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + body)
        while True:
            writer.write(b"0" * 65_536)
            await writer.drain()

    web.answers["/"] = flood

    succeeded, shown = await tool.get(web.url("/"))

    assert succeeded
    text = shown.partition("\n\n")[2]
    assert text == "a" + "é" * 499 + f"\n[The document is cut: only its first {_LIMIT:,} bytes are shown.]"


async def test_html_is_reduced_to_its_text(tool: Tool, web: Web) -> None:
    """The model pays for no markup; the document may state its encoding itself."""
    head = b"<html><head><meta charset=iso-8859-1><style>p {}</style></head>"
    web.answers["/"] = page(head + b"<p>caf\xe9 <a href='/b'>next</a>", content_type="text/html")

    assert await tool.get(web.url("/")) == (True, f"{web.url('/')} (text of text/html)\n\ncafé [next](/b)")


async def test_markup_does_not_take_the_place_of_text(tool: Tool, web: Web) -> None:
    """Of an HTML document the text is cut at the limit; the document itself at eight times as much."""
    web.answers["/script"] = page(b"<script>" + b"a" * 5000 + b"</script><p>text", content_type="text/html")
    web.answers["/long"] = page(b"<p>" + "é".encode() * 600, content_type="text/html")
    web.answers["/huge"] = page(b"<p>text" + b"<script>" + b"a" * 10_000, content_type="application/xhtml+xml")
    note = "\n[The document is cut: only the beginning of its text is shown.]"

    shown = [(await tool.get(web.url(each)))[1].partition("\n\n")[2] for each in ("/script", "/long", "/huge")]

    assert shown == ["text", "é" * 500 + note, "text" + note]


async def test_tenant_has_a_share_of_the_connections(tool: Tool, web: Web) -> None:
    """A further request waits for one of the tenant's own, and takes nothing from another tenant."""
    web.answers["/"] = web.hang
    web.answers["/fast"] = page(b"there")
    slow = [asyncio.create_task(tool.get(web.url("/"))) for _ in range(_SHARE)]
    await soon(lambda: web.waiting == _SHARE)
    waiting = asyncio.create_task(tool.get(web.url("/fast")))

    assert (await tool.get(web.url("/fast"), tenant_id="other"))[0]
    assert not waiting.done()
    slow[0].cancel()
    assert (await waiting)[0]

    for each in slow:
        each.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_document_of_the_largest_size_is_whole(tool: Tool, web: Web) -> None:
    """One byte less than what is cut."""
    web.answers["/"] = page(b"a" * _LIMIT)

    assert (await tool.get(web.url("/")))[1].partition("\n\n")[2] == "a" * _LIMIT


@pytest.mark.parametrize("drips", [False, True])
async def test_slow_answer_is_an_error_and_its_connection_closed(web: Web, drips: bool) -> None:  # noqa: FBT001 - a case
    """Whether nothing comes, or a byte now and then."""
    tool = Tool(f"127.0.0.1:{web.port}", seconds=0.3)
    closed = asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            while True:
                writer.write(b"a" if drips else b"")
                await asyncio.sleep(0.02)
        finally:
            closed.set()

    web.answers["/"] = drip

    succeeded, shown = await tool.get(web.url("/"))

    assert not succeeded
    assert "within 0.3 s" in shown or "in time" in shown
    assert isinstance(tool.error, ToolTimedOut)
    await soon(lambda: closed.is_set() or not web.requests)  # on a busy machine the time may end before it is sent
    await tool.fetcher.aclose()


async def test_cancelled_call_closes_its_connection(tool: Tool, web: Web) -> None:
    """Nothing of it goes on."""
    web.answers["/"] = web.hang
    call = asyncio.create_task(tool.get(web.url("/")))
    await soon(lambda: web.waiting == 1)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    await soon(lambda: web.waiting == 0)


@pytest.mark.parametrize(
    ("pattern", "url", "matches"),
    [
        ("example.com", ("https", "example.com", 443), True),
        ("example.com", ("https", "EXAMPLE.com.", 443), True),
        ("example.com", ("http", "example.com", 80), True),
        ("example.com", ("https", "example.com", 80), False),
        ("example.com", ("https", "www.example.com", 443), False),
        ("example.com", ("https", "badexample.com", 443), False),
        ("*.example.com", ("https", "www.example.com", 443), True),
        ("*.example.com", ("https", "example.com", 443), False),
        ("*.example.com", ("https", "badexample.com", 443), False),
        ("*", ("https", "example.com", 443), True),
        ("*", ("https", "example.com", 8443), False),
        ("*:8443", ("https", "example.com", 8443), True),
        ("[::1]:8443", ("https", "0:0::1", 8443), True),
    ],
)
def test_patterns_of_hosts(pattern: str, url: tuple[str, str, int], matches: bool) -> None:  # noqa: FBT001 - a case
    """A pattern without a port permits the default one alone."""
    assert HostPattern.of(pattern).matches(*url) is matches


@pytest.mark.parametrize(
    "text", ["", " ", "a,,b", "a*.example.com", "*.*", "https://a", "a/b", "a:0", "a:65536", "[x]"]
)
def test_what_is_no_pattern(text: str) -> None:
    """A server with it does not start."""
    with pytest.raises(ValueError, match=r".+"):
        read_hosts(text)

"""Servers that misbehave: each call ends with an error that the model sees, and the next one works."""

import ipaddress
import tracemalloc
from collections.abc import Callable
from datetime import timedelta

import pytest

from godoty_service.agents.mcp.server import Credentials, McpServer, OAuthClient
from openrouter_sandbox.mcp.app import CLIENT, SECRET
from openrouter_sandbox.mcp.server import McpSandbox
from tests.unit.agents.mcp.conftest import Client, call, content_of

At = Callable[..., McpServer]
GENERATIONS = ("/mcp", "/legacy")


@pytest.mark.parametrize("path", GENERATIONS)
async def test_server_that_dies_in_the_middle_of_a_call(client: Client, at: At, path: str) -> None:
    """It is unknown whether the tool ran: the call is not repeated."""
    turn = client.turn()

    died = await call(turn, at(path), "die")

    assert died.status == "error"
    assert "broke" in died.text
    assert (await call(turn, at(path), "echo", text="on")).text == "on"


@pytest.mark.parametrize("path", GENERATIONS)
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_flood_is_cut_off(client: Client, at: At, path: str, kind: str) -> None:
    """100 MB: neither read nor held in memory."""
    turn = client.turn()
    await call(turn, at(path), "echo", text="first")
    tracemalloc.start()
    try:
        flooded = await call(turn, at(path), "flood", megabytes=100, kind=kind)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert repr(flooded) == "error: The server's answer is larger than 1,048,576 bytes."
    assert peak < 16 * 1024 * 1024  # of the server's buffers as well
    assert (await call(turn, at(path), "echo", text="on")).text == "on"


@pytest.mark.parametrize(
    "kind", ["html", "broken", "wrong", "other", "empty", "deep", "lists", "status", "charset", "type"]
)
async def test_nonsense_is_an_error(client: Client, at: At, kind: str) -> None:
    """What is no answer of the protocol; the connection remains usable."""
    turn = client.turn()

    answered = await call(turn, at(timeout=timedelta(seconds=2)), "nonsense", kind=kind)

    assert answered.status == "error"
    assert 0 < len(answered.text) < 600
    assert (await call(turn, at(), "echo", text="on")).text == "on"


@pytest.mark.parametrize(
    "path", ["/nonsense?kind=html", "/nonsense?kind=broken", "/nonsense?kind=empty", "/flood", "/no"]
)
async def test_what_is_no_server_of_the_protocol_is_unavailable(client: Client, at: At, path: str) -> None:
    """It fails when the connection is opened, with a reason."""
    outcome = await call(client.turn(), at(path), "echo", text="a")

    assert outcome.status == "error"
    assert outcome.text


async def test_mute_server_fails_within_the_time_of_the_call(client: Client, at: At) -> None:
    """A server that accepts the connection and says nothing."""
    outcome = await call(client.turn(), at("/silent", timeout=timedelta(seconds=0.3)), "echo", text="a")

    assert "0.3 s" in outcome.text


async def test_redirect_is_followed(client: Client, at: At, sandbox: McpSandbox) -> None:
    """With its body: 307 and 308."""
    crm = at(f"/redirect?to={sandbox.url()}")

    assert repr(await call(client.turn(), crm, "echo", text="a")) == "success: a"


async def test_redirect_that_drops_the_body_is_an_error(client: Client, at: At, sandbox: McpSandbox) -> None:
    """302 makes a GET of a POST."""
    outcome = await call(client.turn(), at(f"/redirect?to={sandbox.url()}&status=302"), "echo", text="a")

    assert "302" in outcome.text


async def test_endless_redirects_are_an_error(client: Client, at: At) -> None:
    """It redirects to itself."""
    crm = at("/redirect?to=/redirect?to=x")
    outcome = await call(client.turn(), crm, "echo", text="a")

    assert outcome.status == "error"


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:{port}/mcp", "http://localhost:{port}/mcp", "https://10.0.0.1/", "file:///etc/passwd"]
)
async def test_redirect_to_a_refused_address_is_not_followed(
    connect: Callable[..., Client], at: At, sandbox: McpSandbox, target: str
) -> None:
    """Each address is checked anew, also behind a name."""
    client = connect((ipaddress.ip_network("127.0.0.1/32"),) if "localhost" not in target else ())
    port = sandbox.origin.rpartition(":")[2]
    crm = at(f"/redirect?to={target.format(port=port)}")
    before = len(sandbox.state.requests)

    outcome = await call(client.turn(), crm, "echo", text="a")

    assert outcome.status == "error"
    assert all(each["path"] == "/redirect" for each in sandbox.state.requests[before:])


async def test_private_server_is_not_connected_to_without_the_operator(
    connect: Callable[..., Client], at: At, sandbox: McpSandbox
) -> None:
    """Not one request reaches it."""
    outcome = await call(connect(()).turn(), at(), "echo", text="a")

    assert "not permitted" in outcome.text
    assert sandbox.state.requests == []


async def test_secret_header_reaches_the_server_alone(client: Client, sandbox: McpSandbox, at: At) -> None:
    """Not the host that it redirects to, and no error."""
    async with McpSandbox() as other:
        client.credentials["crm"] = Credentials(headers=(("X-Api-Key", SECRET),))

        assert repr(await call(client.turn(), at("/secret"), "echo", text="a")) == "success: a"
        refused = await call(client.turn(), at(f"/redirect?to={other.url('/secret')}", revision=2), "echo", text="a")

    assert refused.status == "error"
    assert SECRET not in refused.text
    assert any(each["headers"].get("x-api-key") == SECRET for each in sandbox.state.requests)
    assert other.state.requests
    assert not any(SECRET in str(each) for each in other.state.requests)


async def test_server_that_repeats_its_secret_does_not_reveal_it(client: Client, at: At) -> None:
    """Neither to the model nor to readers of the turn."""
    client.credentials["crm"] = Credentials(headers=(("Authorization", f"Bearer {SECRET}"),))

    outcome = await call(client.turn(), at(), "echo", text=f"you are {SECRET}")

    assert outcome.text == "you are [secret]"


async def test_oauth_client_gets_a_token(client: Client, sandbox: McpSandbox, at: At) -> None:
    """Once for all connections; a wrong secret is an error without the secret."""
    oauth = OAuthClient(token_url=sandbox.url("/token"), client_id=CLIENT, scope="tools")
    client.credentials.update(crm=Credentials(client_secret=SECRET), other=Credentials(client_secret="wrong-one"))

    for _ in range(2):
        assert repr(await call(client.turn(), at("/secret", oauth=oauth), "echo", text="a")) == "success: a"
    refused = await call(client.turn(), at("/secret", name="other", oauth=oauth), "echo", text="a")

    tokens = [each for each in sandbox.state.requests if each["path"] == "/token"]
    assert len(tokens) == 2
    assert repr(refused) == "error: The token endpoint refused the client's credentials: HTTP 401."


async def test_refused_token_is_fetched_anew(client: Client, sandbox: McpSandbox, at: At) -> None:
    """A server that has revoked it."""
    oauth = OAuthClient(token_url=sandbox.url("/token"), client_id=CLIENT)
    client.credentials["crm"] = Credentials(client_secret=SECRET)
    crm = at("/secret", oauth=oauth)
    await call(client.turn(), crm, "echo", text="a")
    token = client.links.get(crm)._token
    assert token is not None
    token._token = "revoked"

    assert repr(await call(client.turn(), crm, "echo", text="b")) == "success: b"


async def test_missing_secret_is_an_error_with_its_status(client: Client, at: At) -> None:
    """The tenant finds out what is wrong."""
    assert "HTTP 401" in (await call(client.turn(), at("/secret"), "echo", text="a")).text


@pytest.mark.parametrize("path", GENERATIONS)
async def test_result_of_many_blocks_has_few(client: Client, at: At, path: str) -> None:
    """Each of them is handled again with every later request to the model; a note says how many are missing."""
    use = {"toolUseId": "t1", "name": "crm_many", "input": {"kind": "blocks", "number": 5_000}}

    content = await content_of(client.turn(), at(path), use)

    assert len(content) == 32
    assert "\n".join(each["text"] for each in content).split("\n") == ["a"] * 500 + [
        "[4,500 more parts of the result are left out.]"
    ]


@pytest.mark.parametrize("kind", ["requests", "notifications"])
async def test_messages_of_one_answer_are_bounded(client: Client, at: At, kind: str) -> None:
    """Few small bytes would be much work."""
    turn = client.turn()

    flooded = await call(turn, at("/legacy"), "many", kind=kind, number=20_000)

    assert repr(flooded) == "error: The server's answer has more than 10,000 lines."
    assert (await call(turn, at("/legacy"), "echo", text="on")).text == "on"


async def test_client_answers_a_bounded_number_of_requests(client: Client, at: At, sandbox: McpSandbox) -> None:
    """The call has its result all the same."""
    turn = client.turn()

    answered = await call(turn, at("/legacy"), "many", kind="requests", number=1_000)

    assert repr(answered) == "success: a"
    assert (await call(turn, at("/legacy"), "echo", text="on")).text == "on"
    assert len(sandbox.state.requests) < 220


async def test_secret_is_masked_before_a_text_is_cut(client: Client, at: At) -> None:
    """Its beginning would not be found as the secret."""
    crm = at(output_bytes=256, header_names=("X-Api-Key",))
    client.credentials["crm"] = Credentials(headers=(("X-Api-Key", SECRET),))

    answered = await call(client.turn(), crm, "echo", text="x" * 250 + SECRET)

    assert SECRET[:6] not in answered.text
    assert "[secr" in answered.text

"""Invalid requests are refused with a status, a reason and the fields, and change nothing."""

import base64
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.support.caller import Caller, Failure, failure_of
from tests.support.service import Service

CONVERSE = "/godoty.v1.AgentService/Converse"
NOTHING = {"sessions": 0, "messages": 0, "ledger": 0}
INVALID = grpc.StatusCode.INVALID_ARGUMENT
KIB_256 = 256 * 1024

FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("text", {"text": ""}),
    ("text", {"text": " \n\t\u2003"}),
    ("text", {"text": "x" * (KIB_256 + 1)}),
    ("text", {"text": "ü" * (KIB_256 // 2) + "x"}),
    ("session_id", {"session_id": "not a session id"}),
    ("session_id", {"session_id": "a/b"}),
    ("session_id", {"session_id": "trailing\n"}),
    ("session_id", {"session_id": "ünique"}),
    ("session_id", {"session_id": "x" * 129}),
    ("model", {"model": "not a model"}),
    ("model", {"model": "x" * 129}),
    ("fallback_models", {"model": "openai/gpt-4o-mini", "fallback_models": ["openai/gpt-4o-mini"] * 9}),
    ("fallback_models", {"model": "openai/gpt-4o-mini", "fallback_models": [""]}),
    ("fallback_models", {"fallback_models": ["openai/gpt-4o-mini"]}),
    ("limits.max_model_calls", {"limits": pb.TurnLimits(max_model_calls=0)}),
    ("limits.max_model_calls", {"limits": pb.TurnLimits(max_model_calls=-1)}),
    ("limits.max_output_tokens", {"limits": pb.TurnLimits(max_output_tokens=0)}),
    ("limits.max_output_tokens", {"limits": pb.TurnLimits(max_output_tokens=-(2**31))}),
    ("user", {"user": "x" * 129}),
]


@pytest.mark.parametrize(("field", "fields"), FIELDS, ids=[f"{field}-{n}" for n, (field, _) in enumerate(FIELDS)])
async def test_invalid_field_is_named_and_nothing_is_stored(caller: Caller, field: str, fields: dict[str, Any]) -> None:
    """An invalid field of a turn is INVALID_ARGUMENT with INVALID_FIELD, and BadRequest says what it must be."""
    turn = await caller.converse(**({"text": "hi"} | fields))

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (INVALID, "INVALID_FIELD")
    assert list(turn.failure.fields) == [field]
    assert turn.failure.fields[field]
    assert turn.failure.retry_after is None
    assert turn.responses == ()
    assert caller.service.document_counts() == NOTHING


async def test_all_invalid_fields_are_named_in_one_error(caller: Caller) -> None:
    """A request with several invalid fields gets one error that names each of them."""
    limits = pb.TurnLimits(max_model_calls=0, max_output_tokens=0)
    turn = await caller.converse(" ", session_id="a b", model="? ?", user="x" * 200, limits=limits)

    assert turn.failure is not None
    fields = {"text", "session_id", "model", "user", "limits.max_model_calls", "limits.max_output_tokens"}
    assert set(turn.failure.fields) == fields


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("model", {"model": "openai/gpt-99"}),
        ("fallback_models", {"model": "openai/gpt-4o-mini", "fallback_models": ["openai/gpt-99"]}),
    ],
)
async def test_unknown_model_is_refused_before_anything_is_stored(
    caller: Caller, field: str, fields: dict[str, Any]
) -> None:
    """A model or fallback that the catalogue lacks is UNKNOWN_MODEL, with the model and the field."""
    turn = await caller.converse("hi", **fields)

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (INVALID, "UNKNOWN_MODEL")
    assert turn.failure.metadata == {"model": "openai/gpt-99"}
    assert list(turn.failure.fields) == [field]
    assert caller.service.document_counts() == NOTHING


async def test_text_of_the_maximum_length_is_accepted(caller: Caller) -> None:
    """256 KiB of UTF-8 are stored unchanged, NUL and emoji included."""
    start = "@sandbox plain text=ok \0 👩‍🔬 "
    text = start + "ü" * ((KIB_256 - len(start.encode())) // 2)
    turn = await caller.converse(text)

    assert turn.text == "ok"
    assert (await caller.messages())[0].content[0].text == text


async def test_another_end_user_is_refused(caller: Caller) -> None:
    """A session keeps its first end user; a turn of another one is refused, and changes nothing."""
    await caller.converse("hi", user="first")
    before = caller.service.session("talk"), caller.service.document_counts()

    turn = await caller.converse("hi", user="second")

    assert turn.failure is not None
    assert (turn.failure.reason, list(turn.failure.fields)) == ("INVALID_FIELD", ["user"])
    assert (caller.service.session("talk"), caller.service.document_counts()) == before
    assert (await caller.converse("hi again", user="first")).finished
    assert (await caller.converse("no user is named")).finished


async def test_session_without_an_end_user_gets_the_first_one(caller: Caller) -> None:
    """A session that was created without an end user gets the first one named, and keeps it."""
    await caller.converse("hi")
    await caller.converse("hi", user="first")

    turn = await caller.converse("hi", user="second")

    assert turn.failure is not None
    assert list(turn.failure.fields) == ["user"]


@pytest.mark.parametrize(
    "request_of",
    [
        lambda session_id: ("GetSession", pb.GetSessionRequest(session_id=session_id)),
        lambda session_id: ("GetSessionMetrics", pb.GetSessionMetricsRequest(session_id=session_id)),
        lambda session_id: ("ListMessages", pb.ListMessagesRequest(session_id=session_id)),
        lambda session_id: ("DeleteSession", pb.DeleteSessionRequest(session_id=session_id)),
    ],
)
@pytest.mark.parametrize("session_id", ["", "a b", "x" * 129])
async def test_malformed_session_id_is_named(
    caller: Caller, session_id: str, request_of: Callable[[str], tuple[str, Any]]
) -> None:
    """Every method that takes a session refuses an empty or malformed id."""
    failure = await failure_of(caller.call(*request_of(session_id)))

    assert (failure.code, failure.reason) == (INVALID, "INVALID_FIELD")
    assert list(failure.fields) == ["session_id"]


async def _refused_page(caller: Caller, **fields: Any) -> Failure:
    """Request a page from both lists; both must refuse it in the same way."""
    sessions = await failure_of(caller.call("ListSessions", pb.ListSessionsRequest(**fields)))
    messages = await failure_of(caller.call("ListMessages", pb.ListMessagesRequest(session_id="talk", **fields)))
    assert sessions == messages
    assert (sessions.code, sessions.reason) == (INVALID, "INVALID_FIELD")
    return sessions


def _token(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        "!!!!",
        "ü",
        "A",
        "AAAA",
        "x" * 10_000,
        _token(None),
        _token(7),
        _token([]),
        _token({}),
        _token(["mark"]),
        _token(["mark", 1]),
        _token([["nested"], {"a": 1}]),
        base64.urlsafe_b64encode(b"[" * 30_000).decode(),
        base64.urlsafe_b64encode(b"9" * 10_000).decode(),
        base64.urlsafe_b64encode(b"\xff\xfe[1]").decode(),
    ],
    ids=range(16),
)
async def test_forged_page_token_is_refused(caller: Caller, token: str) -> None:
    """Any token that the service did not write is INVALID_FIELD `page_token`."""
    await caller.converse("hi")

    assert list((await _refused_page(caller, page_token=token)).fields) == ["page_token"]


async def test_negative_page_size_is_refused(caller: Caller) -> None:
    """A negative size is INVALID_FIELD `page_size`."""
    await caller.converse("hi")

    assert list((await _refused_page(caller, page_size=-1)).fields) == ["page_size"]


async def test_page_token_of_another_query_is_refused(caller: Caller, other_tenant: Caller) -> None:
    """A token is valid for its own query only: not for another filter, session, list or tenant, nor if altered."""
    for tenant in (caller, other_tenant):
        for session_id in ("talk", "other"):
            await tenant.converse("hi", session_id=session_id, user="alice")
    sessions = (await caller.call("ListSessions", pb.ListSessionsRequest(page_size=1, user="alice"))).next_page_token
    messages = (
        await caller.call("ListMessages", pb.ListMessagesRequest(page_size=1, session_id="talk"))
    ).next_page_token
    assert sessions
    assert messages
    mark, time, uid = json.loads(base64.urlsafe_b64decode(sessions + "=" * (-len(sessions) % 4)))
    altered = _token([mark, time.replace("20", "21", 1), uid])
    wrong: list[tuple[Caller, str, Any]] = [
        (caller, "ListSessions", pb.ListSessionsRequest(page_token=sessions)),
        (caller, "ListSessions", pb.ListSessionsRequest(page_token=sessions, user="else")),
        (caller, "ListSessions", pb.ListSessionsRequest(page_token=altered, user="alice")),
        (caller, "ListSessions", pb.ListSessionsRequest(page_token=messages, user="alice")),
        (other_tenant, "ListSessions", pb.ListSessionsRequest(page_token=sessions, user="alice")),
        (caller, "ListMessages", pb.ListMessagesRequest(page_token=messages, session_id="other")),
        (caller, "ListMessages", pb.ListMessagesRequest(page_token=sessions, session_id="talk")),
        (other_tenant, "ListMessages", pb.ListMessagesRequest(page_token=messages, session_id="talk")),
    ]

    for who, method, request in wrong:
        failure = await failure_of(who.call(method, request))
        assert (failure.code, list(failure.fields)) == (INVALID, ["page_token"])


def _raw(caller: Caller, method: str, body: bytes) -> Any:
    stream = method == "Converse"
    channel: Any = caller.channel  # whose stubs know no calls of bytes
    make = channel.unary_stream if stream else channel.unary_unary
    call = make(f"/godoty.v1.AgentService/{method}")(body, metadata=caller.service.metadata, timeout=20)
    return anext(aiter(call)) if stream else call


@pytest.mark.parametrize("method", ["Converse", "GetSession", "ListSessions"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x0a\x02\xff\xfe\x12\x02\xff\xfe\x1a\x02\xff\xfe", id="no UTF-8"),
        pytest.param(b"\xff\xff\xff", id="no message"),
        pytest.param(b"\x12\xff\x01short", id="cut off"),
    ],
)
async def test_undecodable_request_is_refused(caller: Caller, method: str, body: bytes) -> None:
    """A request that cannot be decoded is MALFORMED_REQUEST, without Python's text."""
    failure = await failure_of(_raw(caller, method, body))

    assert (failure.code, failure.reason) == (INVALID, "MALFORMED_REQUEST")
    assert failure.text == "The request could not be decoded."
    assert caller.service.document_counts() == NOTHING


async def test_request_without_a_valid_key_is_not_decoded(service: Service) -> None:
    """A caller without a valid key is refused first."""
    async with grpc.aio.insecure_channel(service.target) as connected:
        channel: Any = connected  # whose stubs know no calls of bytes
        failure = await failure_of(anext(aiter(channel.unary_stream(CONVERSE)(b"\xff\xff", timeout=20))))

    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")


async def test_message_of_5_mb_is_refused_by_grpc(caller: Caller) -> None:
    """A request above 4 MiB is RESOURCE_EXHAUSTED before it reaches the service; the next one is served."""
    turn = await caller.converse("x" * 5_000_000)

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "")
    assert caller.service.document_counts() == NOTHING
    assert (await caller.converse("hi")).finished


async def test_unknown_method_is_unimplemented(caller: Caller) -> None:
    """The answer is gRPC's own."""
    failure = await failure_of(_raw(caller, "NoSuchMethod", b""))

    assert failure.code is grpc.StatusCode.UNIMPLEMENTED

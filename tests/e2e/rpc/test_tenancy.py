"""A tenant sees all of its own data, and nothing else."""

import asyncio
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.support.caller import Caller, failure_of

REQUESTS: list[tuple[str, Any]] = [
    ("GetSession", pb.GetSessionRequest(session_id="talk")),
    ("GetSessionMetrics", pb.GetSessionMetricsRequest(session_id="talk")),
    ("ListMessages", pb.ListMessagesRequest(session_id="talk")),
    ("DeleteSession", pb.DeleteSessionRequest(session_id="talk")),
]


async def _pages(caller: Caller, method: str, request: Any) -> list[list[Any]]:
    """Read all pages of a list."""
    pages: list[list[Any]] = []
    while True:
        answer = await caller.call(method, request)
        pages.append(list(answer.sessions if method == "ListSessions" else answer.messages))
        if not answer.next_page_token:
            return pages
        request.page_token = answer.next_page_token


@pytest.mark.parametrize(("method", "request_of"), REQUESTS, ids=[method for method, _ in REQUESTS])
async def test_session_of_another_tenant_is_not_found(
    caller: Caller, other_tenant: Caller, method: str, request_of: Any
) -> None:
    """The error is the same as for a session that does not exist."""
    await caller.converse("hi")

    others = await failure_of(other_tenant.call(method, request_of))
    await failure_of(other_tenant.call("GetSession", pb.GetSessionRequest(session_id="talk")))

    assert (others.code, others.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    assert others.metadata == {"session_id": "talk"}
    assert others.text == "There is no such session."
    assert len(await caller.messages()) == 2


async def test_session_id_of_another_tenant_creates_a_separate_session(caller: Caller, other_tenant: Caller) -> None:
    """The same id names two sessions: messages, costs and names at the provider stay separate."""
    mine = await caller.converse("my own secret plans", user="u")
    theirs = await other_tenant.converse("hello", user="else")

    assert theirs.started.session_created
    assert theirs.started.totals.cost_usd == "0"
    assert theirs.finished.session_totals.model_calls == 1
    (request,) = other_tenant.service.requests("talk")
    assert "secret plans" not in str(request)
    (own,) = caller.service.requests("talk")
    assert own["session_id"] != request["session_id"]
    assert "talk" not in (own["session_id"], request["session_id"])
    assert (await caller.metrics()).totals == mine.finished.session_totals


async def test_end_user_has_a_pseudonym_per_tenant(caller: Caller, other_tenant: Caller) -> None:
    """The provider gets a pseudonym that reveals neither user nor tenant, stable within the tenant."""
    await caller.converse("hi", user="anna@example.com")
    await caller.converse("hi", user="anna@example.com", session_id="second")
    await other_tenant.converse("hi", user="anna@example.com")

    (first,), (second,), (other,) = (
        caller.service.requests("talk"),
        caller.service.requests("second"),
        other_tenant.service.requests("talk"),
    )
    assert first["user"] == second["user"] != other["user"]
    assert first["session_id"] != second["session_id"]
    for each in (first, second, other):
        assert "anna" not in str(each)
        assert caller.service.tenant_id not in str(each)


async def test_list_has_the_tenants_own_sessions_only(caller: Caller, other_tenant: Caller) -> None:
    """Each tenant lists its own sessions, last used first."""
    for session_id in ("one", "two"):
        await caller.converse("hi", session_id=session_id)
    await other_tenant.converse("hi", session_id="theirs")
    await caller.converse("again", session_id="one")

    mine = await caller.call("ListSessions", pb.ListSessionsRequest())
    theirs = await other_tenant.call("ListSessions", pb.ListSessionsRequest())
    assert [each.session_id for each in mine.sessions] == ["one", "two"]
    assert [each.session_id for each in theirs.sessions] == ["theirs"]
    assert mine.next_page_token == theirs.next_page_token == ""


async def test_many_sessions_are_paged_each_once_in_order(caller: Caller) -> None:
    """Small pages have each session exactly once, last used first, with its own cost; filters apply to each page."""
    ids = [f"s{number:02}" for number in range(23)]
    users = {session_id: ("anna", "berta", "")[number % 3] for number, session_id in enumerate(ids)}
    for start in range(0, len(ids), 6):
        turns = (caller.converse("hi", session_id=each, user=users[each]) for each in ids[start : start + 6])
        await asyncio.gather(*turns)

    pages = await _pages(caller, "ListSessions", pb.ListSessionsRequest(page_size=4))
    listed = [session for page in pages for session in page]
    assert [len(page) for page in pages] == [4, 4, 4, 4, 4, 3]
    assert sorted(session.session_id for session in listed) == ids
    times = [session.update_time.ToDatetime() for session in listed]
    assert times == sorted(times, reverse=True)
    assert {session.session_id: session.user for session in listed} == users
    assert {session.message_count for session in listed} == {2}
    annas = await _pages(caller, "ListSessions", pb.ListSessionsRequest(page_size=3, user="anna"))
    assert [len(page) for page in annas] == [3, 3, 2]
    chosen = [session.session_id for page in annas for session in page]
    assert chosen == [each.session_id for each in listed if users[each.session_id] == "anna"]
    assert await _pages(caller, "ListSessions", pb.ListSessionsRequest(user="unknown")) == [[]]


async def test_many_messages_are_paged_each_once_in_order(caller: Caller) -> None:
    """Small pages have each message exactly once, oldest first, equal to that of one large page."""
    for number in range(3):
        await caller.converse(f"number {number}")
    await caller.converse("@sandbox tool-loop calls=5")
    whole = await caller.messages()
    assert len(whole) == 16

    pages = await _pages(caller, "ListMessages", pb.ListMessagesRequest(session_id="talk", page_size=3))
    assert [len(page) for page in pages] == [3, 3, 3, 3, 3, 1]
    assert [message for page in pages for message in page] == whole
    assert [message.number for message in whole] == list(range(1, 17))
    exact = await _pages(caller, "ListMessages", pb.ListMessagesRequest(session_id="talk", page_size=8))
    assert [len(page) for page in exact] == [8, 8]


async def test_too_large_page_size_is_reduced(caller: Caller) -> None:
    """A page size above the maximum is the maximum."""
    await caller.converse("hi")

    answer = await caller.call("ListMessages", pb.ListMessagesRequest(session_id="talk", page_size=2**31 - 1))
    assert len(answer.messages) == 2


async def test_session_id_of_all_allowed_characters_is_accepted(caller: Caller) -> None:
    """1 to 128 of `[A-Za-z0-9._:-]` are an id, and ids are case-sensitive."""
    for session_id in ("x", "A.b_c:d-9", "a.b_c:d-9", "z" * 128):
        turn = await caller.converse("hi", session_id=session_id)
        assert turn.started.session_created
        assert turn.started.session_id == session_id

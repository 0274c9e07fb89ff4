"""Every RPC is called with values that do not fit each of its fields: it names the field and writes nothing."""

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from tests.e2e.contract.misfits import misfits
from tests.e2e.contract.requests import METHODS, NAMES, NEEDED, Outcome, Party, by_name, put

INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
UNKNOWN = {
    "agent": "no-such-agent",
    "api_key_id": "0" * 16,
    "attachment_id": f"att_{'0' * 28}",
    "call_id": f"call_{'0' * 28}",
    "event_id": f"evt_{'0' * 32}",
    "mcp_server": "no-such-server",
    "session_id": "no-such-session",
    "tenant_id": f"tnt_{'0' * 28}",
    "turn_id": f"turn_{'0' * 28}",
    "webhook_name": "no-such-webhook",
}
REASONS = {
    "agent": "AGENT_NOT_FOUND",
    "api_key_id": "API_KEY_NOT_FOUND",
    "attachment_id": "ATTACHMENT_NOT_FOUND",
    "call_id": "CALL_NOT_FOUND",
    "event_id": "DELIVERY_NOT_FOUND",
    "mcp_server": "MCP_SERVER_NOT_FOUND",
    "session_id": "SESSION_NOT_FOUND",
    "tenant_id": "TENANT_NOT_FOUND",
    "turn_id": "TURN_NOT_FOUND",
    "webhook_name": "WEBHOOK_NOT_FOUND",
}
# An id that a request may choose, or that only filters a list.
CHOSEN = {"Converse.session_id", "CreateTenant.tenant_id", "ImportSession.session_id"}
FILTERS = {f"ListLedgerEntries.{name}" for name in ("api_key_id", "session_id", "turn_id")} | {
    *("ListAdminChanges.tenant_id", "ListTurns.session_id"),
}
# Lists that are the same for all tenants, so that a page token of another one's key fits.
OF_ALL = {"ListAdminChanges", "ListTenants"}
TOKEN_FIELDS = ("page_token", "cursor")


def otherwise(party: Party, stranger: Party) -> dict[str, Any]:
    """Return another value of each filter, with which a page token does not fit any more."""
    return {
        "agent": "assistant",
        "api_key_id": UNKNOWN["api_key_id"],
        "as_of": Timestamp(seconds=1_700_000_000),
        "end_time": Timestamp(seconds=party.values["end_time"]["seconds"] - 60),
        "group_by": [1],
        "model": "openai/gpt-4o",
        "session_id": "other",
        "show_deleted": True,
        "start_time": Timestamp(seconds=party.values["start_time"]["seconds"] + 60),
        "state": 2,
        "tenant_id": stranger.service.tenant_id,
        "time_zone": "Europe/Berlin",
        "turn_id": UNKNOWN["turn_id"],
        "user": "someone else",
        "user_reference": f"user_{'0' * 28}",
        "webhook_name": "other-webhook",
    }


def check(outcome: Outcome, what: str) -> grpc.StatusCode:
    """Check that a call was refused as the contract says; return the status."""
    failure = outcome.failure
    assert failure is not None, f"{what} was accepted: {outcome.responses}"
    assert outcome.responses == [], what
    assert failure.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), f"{what}: {failure}"
    assert {"ErrorInfo", "RequestInfo"} <= set(failure.details), f"{what}: {failure}"
    assert failure.request_id.startswith("req_"), what
    if failure.code is INVALID and failure.reason != "MALFORMED_REQUEST":
        assert "BadRequest" in failure.details, f"{what}: {failure}"
        assert all(failure.fields.values()), f"{what}: {failure}"
    return failure.code


def fields_of(method: MethodDescriptor, *names: str) -> list[FieldDescriptor]:
    """Return the fields of an RPC's request that have one of some names."""
    return [field for field in method.input_type.fields if field.name in names]


def test_each_rpc_has_a_request_here() -> None:
    """An RPC that is added is covered once `NEEDED` has its line."""
    assert sorted(NAMES) == sorted(NEEDED)


@pytest.mark.parametrize("name", NAMES)
def test_misfit_is_refused_with_its_field(party: Party, name: str) -> None:
    """Each value that a field cannot have is INVALID_ARGUMENT, and BadRequest names that field and no other."""
    method, before, wrong = by_name(name), party.written(), []
    for misfit in misfits(method.input_type):
        request = party.request(method)
        put(request, misfit.path, misfit.value)
        outcome = party.ask(method, request)
        try:
            code = check(outcome, str(misfit))
        except AssertionError as error:
            wrong.append(str(error))
            continue
        assert outcome.failure is not None
        if code is not INVALID or not misfit.is_named(list(outcome.failure.fields)):
            wrong.append(f"{misfit}: {outcome.failure}")

    assert wrong == []
    assert party.written() == before


@pytest.mark.parametrize("name", [name for name in NAMES if fields_of(by_name(name), *UNKNOWN)])
def test_id_of_another_tenant_is_not_found(party: Party, stranger: Party, name: str) -> None:
    """Nor is an id that does not exist: the same NOT_FOUND, which names the id; a filter by it finds nothing."""
    method, before, theirs = by_name(name), party.written(), stranger.written()
    for field in fields_of(method, *UNKNOWN):
        place = f"{name}.{field.name}"
        if place in CHOSEN:
            continue
        of_them = "other" if field.name == "session_id" else stranger.values[field.name]
        if field.name == "session_id":  # one that no other tenant has
            of_them = f"theirs-{stranger.service.tenant_id}"
            stranger.converse(of_them)
            theirs = stranger.written()
        for value in (UNKNOWN[field.name], of_them):
            request = party.request(method, **{field.name: value})
            outcome = party.ask(method, request, key=party.bound)
            if place in FILTERS:
                assert outcome.failure is None or place == "ListAdminChanges.tenant_id", f"{place}: {outcome.failure}"
                assert not any(each.ByteSize() for each in outcome.responses), place
                continue
            code = check(outcome, place)
            assert outcome.failure is not None
            if outcome.failure.reason == "OPERATOR_ONLY":  # whose key reads all tenants
                asked = UNKNOWN[field.name] if field.name == "tenant_id" else value
                outcome = party.ask(method, party.request(method, **{field.name: asked}))
                code = check(outcome, place)
            assert outcome.failure is not None
            assert (code, outcome.failure.reason) == (MISSING, REASONS[field.name]), f"{place}: {outcome.failure}"
            assert outcome.failure.metadata[field.name]

    assert (party.written(), stranger.written()) == (before, theirs)


@pytest.fixture(scope="module")
def tokens(party: Party, stranger: Party) -> dict[tuple[str, str], str]:
    """The token of the second page of each list, by its name and its tenant."""
    found = {}
    for who in (party, stranger):
        for method in METHODS:
            for field in fields_of(method, *TOKEN_FIELDS):
                request = who.request(method)
                if field.name == "page_token":
                    request.page_size = 1
                if fields_of(method, "group_by"):
                    request.group_by.append(8)  # by session, of which there are two
                outcome = who.ask(method, request)
                assert outcome.failure is None, method.name
                first = outcome.responses[0]
                token = first.next_page_token if field.name == "page_token" else first.cursor
                assert token, f"{method.name} has no second page: {first}"
                found[method.name, who.service.tenant_id] = token
    return found


@pytest.mark.parametrize("name", [name for name in NAMES if fields_of(by_name(name), *TOKEN_FIELDS)])
def test_token_of_another_query_is_refused(
    party: Party, stranger: Party, tokens: dict[tuple[str, str], str], name: str
) -> None:
    """Another list's, another tenant's, one with another filter, and a truncated or extended one; its own is served."""
    method, before = by_name(name), party.written()
    (field,) = fields_of(method, *TOKEN_FIELDS)
    own = (name, party.service.tenant_id)
    token = tokens[own]
    request = party.request(method, **{field.name: token})
    if fields_of(method, "group_by"):
        request.group_by.append(8)

    def refused(what: str, **changed: Any) -> None:
        other = type(request)()
        other.CopyFrom(request)
        for each, value in changed.items():
            put(other, [method.input_type.fields_by_name[each]], value)
        outcome = party.ask(method, other)
        assert check(outcome, what) is INVALID, what
        assert outcome.failure is not None
        assert list(outcome.failure.fields) == [field.name], f"{what}: {outcome.failure}"

    assert party.ask(method, request).failure is None
    for place, another in tokens.items():
        if place != own and not (name == place[0] and name in OF_ALL):
            refused(f"the token of {place}", **{field.name: another})
    for what in (token[:-4], token[4:], token[:9], token + token, token.swapcase(), f"{token}AAAA"):
        refused(what, **{field.name: what})
    others = otherwise(party, stranger)
    for each in method.input_type.fields:
        if each.name not in (field.name, "page_size"):
            assert each.name in others, f"say in `otherwise` what else {name} may filter by"
            refused(f"with another {each.name}", **{each.name: others[each.name]})
    assert party.written() == before


@pytest.mark.parametrize("name", [name for name in NAMES if fields_of(by_name(name), *TOKEN_FIELDS)])
def test_token_of_any_length_is_refused(party: Party, name: str) -> None:
    """Above what all fields may hold together it is MALFORMED_REQUEST; of 2 MB, gRPC refuses the message itself."""
    method = by_name(name)
    (field,) = fields_of(method, *TOKEN_FIELDS)
    large = party.ask(method, party.request(method, **{field.name: "W" * 250_000}))
    assert (check(large, name), large.failure and large.failure.reason) == (INVALID, "MALFORMED_REQUEST")

    huge = party.ask(method, party.request(method, **{field.name: "W" * 2_000_000}))
    assert huge.failure is not None
    assert huge.failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", [name for name in NAMES if fields_of(by_name(name), "etag")])
def test_etag_of_another_version_is_refused(party: Party, name: str) -> None:
    """ABORTED with the present etag; nothing is changed, nor recorded."""
    method, before = by_name(name), party.written()
    for etag in ("0" * 16, "\0", "W/x", "*", "ü" * 64):
        outcome = party.ask(method, party.request(method, etag=etag))
        assert check(outcome, etag) is grpc.StatusCode.ABORTED
        assert outcome.failure is not None
        assert outcome.failure.reason == "ETAG_MISMATCH"
        assert outcome.failure.metadata["etag"] not in ("", etag)
    assert party.written() == before


@pytest.mark.parametrize("name", [name for name in NAMES if fields_of(by_name(name), "end_time")])
def test_empty_range_of_times_is_refused(party: Party, name: str) -> None:
    """An end at its start, or before it, is INVALID_FIELD `end_time`."""
    method = by_name(name)
    for end in (Timestamp(seconds=1_780_000_000), Timestamp(seconds=1_700_000_000)):
        request = party.request(method, start_time=Timestamp(seconds=1_780_000_000), end_time=end)
        outcome = party.ask(method, request)
        assert check(outcome, name) is INVALID
        assert outcome.failure is not None
        assert list(outcome.failure.fields) == ["end_time"]


@pytest.mark.parametrize("name", [name for name in NAMES if fields_of(by_name(name), "as_of")])
def test_time_in_the_future_is_no_as_of(party: Party, name: str) -> None:
    """What is known then cannot be reproduced: INVALID_FIELD `as_of`."""
    method = by_name(name)
    outcome = party.ask(method, party.request(method, as_of=Timestamp(seconds=4_000_000_000)))

    assert check(outcome, name) is INVALID
    assert outcome.failure is not None
    assert list(outcome.failure.fields) == ["as_of"]

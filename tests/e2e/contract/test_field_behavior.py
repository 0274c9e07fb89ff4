"""The annotations of the fields are true: what is required, what may be left out, and what is ignored."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.api.field_behavior_pb2 import OUTPUT_ONLY, REQUIRED, field_behavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tests.e2e.contract.requests import ELEMENTS, NAMES, NEEDED, Outcome, Party, by_name, new_message, path_of, put
from tests.support.service import until

INVALID = grpc.StatusCode.INVALID_ARGUMENT
# By the name of a field that one of several must be: no annotation can say so.
ONE_OF = {"AdjustCall": {"add_usd": "change"}, "Converse": {"text": "text"}}
# What the requests of these take away, other requests need; `ResumeTenant` is for a tenant of its own, too.
TAKES_AWAY = ("Cancel", "Decide", "Delete", "Erase", "ResumeTenant", "Revoke", "Rotate", "Suspend")
Path = list[FieldDescriptor]


def having(descriptor: Descriptor, behavior: int, parents: tuple[FieldDescriptor, ...] = ()) -> Iterator[Path]:
    """Return the paths to the fields of a request that have an annotation."""
    for field in descriptor.fields:
        path = [*parents, field]
        if behavior in field.GetOptions().Extensions[field_behavior]:
            yield path
        if field.message_type is not None and field.message_type.file.package == descriptor.file.package:
            yield from having(field.message_type, behavior, tuple(path))


def of_type(message: Any, descriptor: Descriptor | None) -> Iterator[Any]:
    """Return the messages of a type in a response."""
    if message.DESCRIPTOR is descriptor:
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                yield from of_type(each, descriptor)


def nested(name: str) -> list[Path]:
    """Return the paths to what is required in the messages of a request."""
    return [path for path in having(by_name(name).input_type, REQUIRED) if len(path) > 1]


@pytest.mark.parametrize("name", NAMES)
def test_required_fields_are_those_that_are_needed(name: str) -> None:
    """The table of needed fields is that of the annotations, which the tests below show to be true."""
    required = {path[0].name for path in having(by_name(name).input_type, REQUIRED) if len(path) == 1}

    assert required == set(NEEDED[name]) - ONE_OF.get(name, {}).keys()


@pytest.mark.parametrize("name", NAMES)
def test_request_of_required_fields_is_served(adding: Party, new_party: Callable[[], Party], name: str) -> None:
    """All other fields may be left out."""
    party, method = new_party() if name.startswith(TAKES_AWAY) else adding, by_name(name)
    outcomes: list[Outcome] = []

    def answered() -> bool:  # a server frees a session a moment after the end of its turn
        outcomes.append(party.ask(method, party.request(method)))
        return outcomes[-1].failure is None or outcomes[-1].failure.reason != "SESSION_BUSY"

    until(answered)
    assert outcomes[-1].failure is None, outcomes[-1].failure
    assert outcomes[-1].responses


@pytest.mark.parametrize("name", [name for name, needed in NEEDED.items() if needed])
def test_required_field_is_named_if_it_is_left_out(party: Party, name: str) -> None:
    """INVALID_FIELD with this field and no other; nothing is written."""
    method, before = by_name(name), party.written()
    for field in NEEDED[name]:
        outcome = party.ask(method, party.request(method, without=field))
        assert outcome.failure is not None, f"{name} is served without {field}"
        assert (outcome.failure.code, outcome.failure.reason) == (INVALID, "INVALID_FIELD")
        assert list(outcome.failure.fields) == [ONE_OF.get(name, {}).get(field, field)]
    assert party.written() == before


@pytest.mark.parametrize("name", [name for name in NAMES if nested(name)])
def test_required_field_of_an_element_is_named_if_it_is_left_out(party: Party, name: str) -> None:
    """The error has its whole path."""
    method, before = by_name(name), party.written()
    for path in nested(name):
        parent = path[-2]
        assert parent.message_type is not None
        element = dict(ELEMENTS[parent.message_type.full_name])
        del element[path[-1].name]
        value: Any = new_message(parent.message_type)(**element)
        request = party.request(method)
        put(request, path[:-1], [value] if parent.is_repeated else value)
        outcome = party.ask(method, request)
        assert outcome.failure is not None
        assert (outcome.failure.code, list(outcome.failure.fields)) == (INVALID, [path_of(path)])
    assert party.written() == before


@pytest.mark.parametrize("name", [name for name in NAMES if list(having(by_name(name).input_type, OUTPUT_ONLY))])
def test_output_only_field_is_ignored_in_a_request(adding: Party, name: str) -> None:
    """The request is served as without it."""
    party, method = adding, by_name(name)
    for path in having(method.input_type, OUTPUT_ONLY):
        request = party.request(method)
        inner, text = path[-1].message_type, path[-1].cpp_type == FieldDescriptor.CPPTYPE_STRING
        made_up = new_message(inner)(seconds=7) if inner is not None else "made up" if text else 2
        put(request, path, made_up)
        outcome = party.ask(method, request)
        assert outcome.failure is None, f"{path_of(path)}: {outcome.failure}"
        found = [each for response in outcome.responses for each in of_type(response, path[-1].containing_type)]
        assert found, f"{name} does not return what it was sent"
        assert all(getattr(each, path[-1].name) != made_up for each in found), path_of(path)

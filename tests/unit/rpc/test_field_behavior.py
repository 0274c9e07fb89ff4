"""What each field is for stands in the contract: google.api.field_behavior, as AIP-203 has it."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from godoty import v1
from google.api.field_behavior_pb2 import IDENTIFIER, OPTIONAL, REQUIRED, FieldBehavior, field_behavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

PROTOS = Path(__file__).parents[3] / "protos/godoty/v1"
FILES = [
    importlib.import_module(f"godoty.v1.{each.name}").DESCRIPTOR
    for each in pkgutil.iter_modules(v1.__path__)
    if each.name.endswith("_pb2")
]
METHODS: list[MethodDescriptor] = [
    method for file in FILES for service in file.services_by_name.values() for method in service.methods
]
MESSAGES: dict[str, Descriptor] = {name: each for file in FILES for name, each in file.message_types_by_name.items()}
# A tenant has one policy, and in it one budget a window; an entry has the id of its call or adjustment; a definition's
# name is that of its agent, which a request needs.
WITHOUT_ID = {"AgentDefinition", "Budget", "LedgerEntry", "McpServer", "Policy", "Webhook"}


def behavior(field: FieldDescriptor) -> set[int]:
    """Return the annotations of a field."""
    return set(field.GetOptions().Extensions[field_behavior])


def used(descriptor: Descriptor) -> Iterator[Descriptor]:
    """Return a message and the messages of the contract in it."""
    yield descriptor
    for field in descriptor.fields:
        inner = field.message_type
        if inner is not None and inner.full_name.startswith("godoty.v1.") and not inner.GetOptions().map_entry:
            yield from used(inner)


def resources() -> Iterator[Descriptor]:
    """Return the messages that have a Get or a List method of their name, and what they are one of."""
    names = {method.name for method in METHODS}
    for name, each in MESSAGES.items():
        plural = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
        if f"Get{name}" in names or f"List{plural}" in names:
            yield each
            for field in each.fields:
                if field.containing_oneof is not None and field.message_type is not None:
                    yield field.message_type


IN_REQUESTS = {each.full_name: each for method in METHODS for each in used(method.input_type)}
RESOURCES = {each.full_name: each for each in resources()}


@pytest.mark.parametrize("name", IN_REQUESTS)
def test_each_field_of_a_request_says_whether_it_is_needed(name: str) -> None:
    """REQUIRED, OPTIONAL or OUTPUT_ONLY (ignored); within a resource, also what changes an id or a constant."""
    for field in IN_REQUESTS[name].fields:
        found = behavior(field)
        assert len(found) == 1, field.full_name
        if name not in RESOURCES:
            assert found < {REQUIRED, OPTIONAL}, f"{field.full_name}: {[FieldBehavior.Name(each) for each in found]}"


@pytest.mark.parametrize("name", RESOURCES)
def test_each_field_of_a_resource_says_who_sets_it(name: str) -> None:
    """One identifies the resource; a field that no caller ever sets is OUTPUT_ONLY."""
    found = [behavior(field) for field in RESOURCES[name].fields]

    assert all(len(each) == 1 for each in found), name
    assert found.count({IDENTIFIER}) == (RESOURCES[name].name not in WITHOUT_ID)


def test_comments_and_annotations_agree() -> None:
    """A comment begins with "Required." where the field is, for readers of stubs that have no annotations."""
    compared = set()
    for path in PROTOS.glob("*.proto"):
        message = ""
        for comment, opened, field in re.findall(
            r"((?:^ *//.*\n)*)^ *(?:message (\w+) \{|(?:optional |repeated |map<string, )?[\w.>]+ (\w+) = \d+)",
            path.read_text(),
            re.MULTILINE,
        ):
            message = opened or message
            if field and message in MESSAGES and field in MESSAGES[message].fields_by_name:
                required = REQUIRED in behavior(MESSAGES[message].fields_by_name[field])
                assert required == comment.lstrip().startswith("// Required."), f"{message}.{field}"
                compared.add(f"{message}.{field}")

    assert {
        field.full_name.removeprefix("godoty.v1.") for each in IN_REQUESTS.values() for field in each.fields
    } <= compared

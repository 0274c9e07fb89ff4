"""Errors and their statuses agree with errors.proto."""

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1.errors_pb2 import ErrorReason
from google.rpc import error_details_pb2

from godoty_service import errors
from godoty_service.rpc.status import code_of, to_status
from godoty_service.rpc.validation import MalformedRequest

PROTO = (Path(__file__).parents[3] / "protos/godoty/v1/errors.proto").read_text()
DOCUMENTED = {
    name: code
    for code, name in re.findall(
        r"^  // ([A-Z_]+)\.[^\n]*\n(?:  //[^\n]*\n)*  ERROR_REASON_([A-Z_]+) =", PROTO, re.MULTILINE
    )
}


def subclasses(kind: type[errors.GodotyError]) -> set[type[errors.GodotyError]]:
    """Return a class and all its subclasses."""
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


KINDS = sorted(
    (each for each in subclasses(errors.GodotyError) if each.__module__.startswith("godoty_service")),
    key=lambda kind: kind.__name__,
)


def test_every_reason_is_documented_with_its_status() -> None:
    """The comment of each reason starts with its status."""
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - an enum's method

    assert set(DOCUMENTED) == reasons - {"UNSPECIFIED"}
    assert set(DOCUMENTED.values()) <= {code.name for code in grpc.StatusCode}


def test_every_reason_has_an_example() -> None:
    """The comment of each reason has an example."""
    comments = re.findall(r"((?:  //[^\n]*\n)+)  ERROR_REASON_([A-Z_]+) =", PROTO)

    assert {name for comment, name in comments if "or example" not in comment} == {"UNSPECIFIED"}
    assert {name for _, name in comments} == {*DOCUMENTED, "UNSPECIFIED"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_has_the_status_of_its_reason(kind: type[errors.GodotyError]) -> None:
    """The code returns the documented status, and every reason that it sends is documented."""
    assert DOCUMENTED[kind.reason] == code_of(kind.__new__(kind)).name


def test_each_detail_occurs_at_most_once() -> None:
    """ErrorInfo always; RetryInfo and BadRequest only if they have contents."""
    violation = errors.FieldViolation(field="text", description="must not be blank")
    status = to_status(
        errors.InvalidRequest("no", metadata={"a": "b"}, retry_after=1.5, violations=[violation, violation])
    )
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()

    assert [detail.TypeName().rsplit(".")[-1] for detail in status.details] == ["ErrorInfo", "RetryInfo", "BadRequest"]
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert status.details[2].Unpack(bad)
    assert (info.reason, info.domain, dict(info.metadata)) == ("INVALID_FIELD", "godoty.app", {"a": "b"})
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.5
    assert [each.field for each in bad.field_violations] == ["text", "text"]


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (errors.SessionBusy("x", retry_after=1.0), True),
        (errors.ProviderThrottled("x"), True),
        (errors.ProviderUnavailable("x"), True),
        (errors.StorageUnavailable("x"), True),
        (errors.ProviderAccountRefused("x"), False),
        (errors.ContextWindowExceeded("x"), False),
        (MalformedRequest("x"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_retry_info_is_set_only_if_a_retry_helps(error: errors.GodotyError, *, helps: bool) -> None:
    """Errors that a retry cannot fix have none."""
    types: list[Any] = [detail.TypeName() for detail in to_status(error).details]

    assert ("google.rpc.RetryInfo" in types) is helps


def test_docstring_draws_the_class_tree() -> None:
    """The docstring of errors.py draws each class below its parent."""
    drawn = re.findall(r"^([│├└─ ]*)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    names = {name for _, name in drawn}

    own = {kind.__name__ for kind in KINDS if kind.__module__ == "godoty_service.errors"}
    assert own <= names
    indents = {name: len(lines) for lines, name in drawn}
    for kind in KINDS:
        if kind.__module__ == "godoty_service.errors" and kind is not errors.GodotyError:
            (parent,) = (base for base in kind.__bases__ if issubclass(base, errors.GodotyError))
            assert indents[kind.__name__] > indents[parent.__name__], kind.__name__

"""Errors and their statuses: what errors.proto says is what callers get."""

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1.errors_pb2 import ErrorReason
from google.rpc import error_details_pb2

from godoty_service import errors
from godoty_service.rpc.status import code_of, to_status
from godoty_service.rpc.wire import MalformedRequest

PROTO = (Path(__file__).parents[3] / "protos/godoty/v1/errors.proto").read_text()
DOCUMENTED = {
    name: code
    for code, name in re.findall(
        r"^  // ([A-Z_]+)\.[^\n]*\n(?:  //[^\n]*\n)*  ERROR_REASON_([A-Z_]+) =", PROTO, re.MULTILINE
    )
}


def subclasses(kind: type[errors.GodotyError]) -> set[type[errors.GodotyError]]:
    """A class and all below it."""
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


KINDS = sorted(
    (each for each in subclasses(errors.GodotyError) if each.__module__.startswith("godoty_service")),
    key=lambda kind: kind.__name__,
)


def test_every_reason_is_documented_with_its_status() -> None:
    """The comment of each reason begins with the status that it comes with."""
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - an enum's method

    assert set(DOCUMENTED) == reasons - {"UNSPECIFIED"}
    assert set(DOCUMENTED.values()) <= {code.name for code in grpc.StatusCode}


def test_every_reason_has_an_example() -> None:
    """Whoever reads the comment of a reason sees when it comes."""
    comments = re.findall(r"((?:  //[^\n]*\n)+)  ERROR_REASON_([A-Z_]+) =", PROTO)

    assert {name for comment, name in comments if "or example" not in comment} == {"UNSPECIFIED"}
    assert {name for _, name in comments} == {*DOCUMENTED, "UNSPECIFIED"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_has_the_status_that_its_reason_documents(kind: type[errors.GodotyError]) -> None:
    """What the code does is what errors.proto says; a reason that is not there would be sent to nobody's knowledge."""
    assert DOCUMENTED[kind.reason] == code_of(kind.__new__(kind)).name


def test_each_detail_comes_at_most_once() -> None:
    """ErrorInfo always; RetryInfo and BadRequest where there is something to say."""
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
def test_retry_info_comes_where_a_retry_helps(error: errors.GodotyError, *, helps: bool) -> None:
    """And nowhere else."""
    types: list[Any] = [detail.TypeName() for detail in to_status(error).details]

    assert ("google.rpc.RetryInfo" in types) is helps


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """errors.py opens with a drawing of its classes: each stands there, below its parent."""
    drawn = re.findall(r"^([│├└─ ]*)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    names = {name for _, name in drawn}

    own = {kind.__name__ for kind in KINDS if kind.__module__ == "godoty_service.errors"}
    assert own <= names
    indents = {name: len(lines) for lines, name in drawn}
    for kind in KINDS:
        if kind.__module__ == "godoty_service.errors" and kind is not errors.GodotyError:
            (parent,) = (base for base in kind.__bases__ if issubclass(base, errors.GodotyError))
            assert indents[kind.__name__] > indents[parent.__name__], kind.__name__

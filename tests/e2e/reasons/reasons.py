"""What errors.proto says about each reason, read from its comments."""

import re
from dataclasses import dataclass
from pathlib import Path

_PROTO = (Path(__file__).parents[3] / "protos/godoty/v1/errors.proto").read_text()
_EXAMPLE = "For example: "


@dataclass(frozen=True)
class Documented:
    """A reason as it is documented.

    Attributes:
        name: Without the prefix.
        status: The name of the gRPC status.
        required: The keys of the metadata that every error has.
        optional: The keys that it may have.
        details: The types of google.rpc that it has besides ErrorInfo and RequestInfo.
        example: The keys of the metadata of the example.
        quota: The quota of the example; empty: it has none.
    """

    name: str
    status: str
    required: frozenset[str]
    optional: frozenset[str]
    details: frozenset[str]
    example: frozenset[str]
    quota: str


def documented() -> dict[str, Documented]:
    """Return the reasons by name, but for the one that is never sent."""
    found = re.findall(r"((?:  //[^\n]*\n)+)  ERROR_REASON_([A-Z_]+) =", _PROTO)
    return {name: _read(name, _text(comment)) for comment, name in found if name != "UNSPECIFIED"}


def _text(comment: str) -> str:
    return " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())


def _read(name: str, text: str) -> Documented:
    rule, _, example = text.partition(_EXAMPLE)
    listed = re.search(r"metadata: (.*?)\.(?: |$)", rule)
    items = re.split(r", (?![^()]*\))", listed.group(1)) if listed else []
    keys = {item.split(" ")[0]: " if " in item for item in items}
    assert all(re.fullmatch("[a-z_]+", key) for key in keys), text
    shown = example.partition("metadata: ")[2]
    quota = re.search(r"Quota: (\S+)\.", example)
    return Documented(
        name=name,
        status=rule.partition(".")[0],
        required=frozenset(key for key, optional in keys.items() if not optional),
        optional=frozenset(key for key, optional in keys.items() if optional),
        details=frozenset(re.findall(r"google\.rpc\.(\w+)", rule)),
        example=frozenset(re.findall(r"\b([a-z_]+)=", shown)),
        quota=quota.group(1) if quota else "",
    )

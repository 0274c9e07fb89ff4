"""The request for a turn, from the arguments of `converse`."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from godoty.actions.answers import Answer, Responder
from godoty.codec import enum_number, to_duration, to_message
from godoty.operations.attachments import Upload
from godoty.turns.options import AttachmentInput, ConverseOptions
from godoty.types import Attachment
from godoty.v1 import action_pb2, agent_pb2, attachment_pb2, turn_pb2
from godoty.v1 import agent_service_pb2 as pb

INLINE_BYTES = 1024 * 1024
"""Bytes of attachments that a request carries itself, in all; larger ones are uploaded before."""

_MAX_REQUEST_ID = 128  # characters

_T = TypeVar("_T")


class SchemaModel(Protocol):
    """A class with a JSON schema, as pydantic's models have."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema."""

    @classmethod
    def model_validate_json(cls, json_data: str) -> Self:
        """Return the instance of a JSON text."""


@dataclass(frozen=True)
class Output(Generic[_T]):
    """What a turn's value is.

    Attributes:
        schema: The JSON schema as JSON text.
        parse: Returns the value of a JSON text.
    """

    schema: str
    parse: Callable[[str], _T]


@dataclass(frozen=True)
class Prepared:
    """A request, and what must be uploaded for it first."""

    request: pb.ConverseRequest
    uploads: tuple[Upload, ...]
    timeout: float | None


def output_of(schema: type[Any] | Mapping[str, Any] | str) -> Output[Any]:
    """Return the output by a pydantic class, or by a JSON schema as a mapping or as JSON text.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(schema, str):
        return Output(schema, json.loads)
    if isinstance(schema, Mapping):
        return Output(json.dumps(schema), json.loads)
    if hasattr(schema, "model_json_schema") and hasattr(schema, "model_validate_json"):
        return Output(json.dumps(schema.model_json_schema()), schema.model_validate_json)
    raise TypeError(f"{schema!r} is no output schema: pass a pydantic class, or a JSON schema as dict or str")


def prepare(
    text: str,
    options: ConverseOptions,
    *,
    output: Output[Any] | None,
    disconnect_grace: float,
    responder: Responder | None = None,
    answers: Sequence[Answer] = (),
) -> Prepared:
    """Return the request for a turn; an option that is None is not given.

    Args:
        text: The user's message; empty for answers.
        options: What `converse` was given.
        output: What the turn's value is.
        disconnect_grace: In seconds.
        responder: Has the tools that the request declares.
        answers: Answers to actions, beside those of the options.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    sources, files = _attachments(given.get("attachments", ()))
    results = [to_message(action_pb2.ActionResult, each) for each in given.get("action_results", ())]
    results += [each.result for each in answers]
    request = pb.ConverseRequest(
        session_id=given.get("session", ""),
        text=text,
        model=given.get("model", ""),
        fallback_models=given.get("fallback_models", ()),
        user=given.get("user", ""),
        request_id=given.get("request_id") or f"req_{secrets.token_hex(16)}",
        agent=given.get("agent", ""),
        variables=given.get("variables", {}),
        attachments=sources,
        output_schema=output.schema if output is not None else "",
        action_results=results,
        client_tools=responder.declarations() if responder is not None and not results else (),
    )
    if disconnect_grace:
        request.disconnect_grace.CopyFrom(to_duration(timedelta(seconds=disconnect_grace)))
    if "on_busy" in given:
        number = enum_number(turn_pb2.OnBusy.DESCRIPTOR, given["on_busy"])
        request.on_busy = number  # type: ignore[assignment] # of the enum
    if "on_disconnect" in given:
        number = enum_number(turn_pb2.OnDisconnect.DESCRIPTOR, given["on_disconnect"])
        request.on_disconnect = number  # type: ignore[assignment] # of the enum
    if "parameters" in given:
        request.parameters.CopyFrom(to_message(agent_pb2.ModelParameters, given["parameters"]))
    if "limits" in given:
        request.limits.CopyFrom(to_message(turn_pb2.TurnLimits, given["limits"]))
    uploads = [Upload(source, request.attachments[place]) for place, source in files]
    outputs = [each.output for each in request.action_results[len(results) - len(answers) :]]
    uploads += [
        Upload(each.image, output) for each, output in zip(answers, outputs, strict=True) if each.image is not None
    ]
    return Prepared(request, tuple(uploads), given.get("timeout"))


def follow_up(
    asked: pb.ConverseRequest, session_id: str, results: Sequence[action_pb2.ActionResult], *, number: int
) -> pb.ConverseRequest:
    """Return the request that goes on with answers; all else is as the turn that asked has it.

    Args:
        asked: The first request.
        session_id: The session.
        results: The answers.
        number: The number of the request after the first: its id follows from it, so that the same answers are taken
            once even if the program begins again with its own request id.
    """
    request_id = f"{asked.request_id}.{number}"
    if len(request_id) > _MAX_REQUEST_ID:
        request_id = f"req_{hashlib.sha256(request_id.encode()).hexdigest()}"
    request = pb.ConverseRequest(
        session_id=session_id,
        request_id=request_id,
        on_busy=asked.on_busy,
        on_disconnect=asked.on_disconnect,
        action_results=results,
    )
    if asked.HasField("disconnect_grace"):
        request.disconnect_grace.CopyFrom(asked.disconnect_grace)
    return request


def _attachments(
    inputs: Sequence[AttachmentInput],
) -> tuple[list[attachment_pb2.AttachmentSource], list[tuple[int, Path | bytes]]]:
    """Return the sources, and what is to be uploaded, by its place: its source is empty yet."""
    sources: list[attachment_pb2.AttachmentSource] = []
    uploads: list[tuple[int, Path | bytes]] = []
    free = INLINE_BYTES
    for place, given in enumerate(inputs):
        each = _located(given)
        if not isinstance(each, Path | bytes):
            sources.append(each)
            continue
        size = len(each) if isinstance(each, bytes) else each.stat().st_size
        if size > free:
            uploads.append((place, each))
            sources.append(attachment_pb2.AttachmentSource())
            continue
        free -= size
        data = each if isinstance(each, bytes) else each.read_bytes()
        sources.append(attachment_pb2.AttachmentSource(inline=data))
    return sources, uploads


def _located(given: AttachmentInput) -> attachment_pb2.AttachmentSource | Path | bytes:
    if isinstance(given, Attachment):
        return attachment_pb2.AttachmentSource(attachment_id=given.attachment_id)
    if not isinstance(given, str):
        return given
    if given.startswith("https://"):
        return attachment_pb2.AttachmentSource(url=given)
    if given.startswith("att_"):
        return attachment_pb2.AttachmentSource(attachment_id=given)
    return Path(given).expanduser()

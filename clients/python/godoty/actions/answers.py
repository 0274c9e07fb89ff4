"""The answers that a turn's tools and its approval callback give to actions. It calls nothing itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from godoty.actions.approvals import ApprovalCallback, Deny, result_of
from godoty.actions.outputs import output_of
from godoty.actions.tools import Tool, is_asynchronous
from godoty.operations.attachments import Upload
from godoty.types import Action, ActionDecider, ActionKind
from godoty.v1 import action_pb2 as pb

_log = logging.getLogger("godoty")

_MAX_RESULTS = 16  # of one request
_MAX_BYTES = 120_000  # of the results of one request; servers take 128 KiB


class UnknownTool(LookupError):
    """The model called a tool that the caller does not have."""


class Question(NamedTuple):
    """A call of the caller's code that answers an action.

    Attributes:
        action: The action.
        function: The call.
        timeout: The seconds that it may take. None: any time.
        asynchronous: Its result is an awaitable that belongs into the caller's event loop.
    """

    action: Action
    function: Callable[[], Any]
    timeout: float | None
    asynchronous: bool

    @property
    def is_tool(self) -> bool:
        """Whether it runs a client tool; otherwise it decides on an approval."""
        return self.action.kind is ActionKind.CLIENT_TOOL


@dataclass
class Answer:
    """The answer to an action.

    Attributes:
        result: The answer; its output is empty as long as the image is not uploaded.
        image: The image that its output is.
    """

    result: pb.ActionResult
    image: bytes | None = None


@dataclass(frozen=True)
class Responder:
    """What a turn may answer by itself.

    Attributes:
        tools: The client tools by name.
        approve: Decides on approvals. None: they are left open.
    """

    tools: Mapping[str, Tool] = field(default_factory=dict)
    approve: ApprovalCallback | None = None

    def declarations(self) -> list[pb.ClientTool]:
        """Return the tools that a request declares."""
        return [each.declaration() for each in self.tools.values() if each.declare]

    def question(self, action: Action) -> Question | None:
        """Return what answers an action; None: nothing does."""
        if action.kind is ActionKind.APPROVAL and self.approve is not None:
            return Question(action, partial(self.approve, action), None, is_asynchronous(self.approve))
        if action.kind is not ActionKind.CLIENT_TOOL or not self.tools:
            return None
        tool = self.tools.get(action.name)
        if tool is None:
            return Question(action, partial(_unknown, action.name), None, asynchronous=True)
        return Question(action, partial(tool.call, action), tool.timeout, tool.asynchronous)


class Answers:
    """The answers to the actions of a turn and of those that go on with it.

    Each action is asked about once, and answered once; what a request cannot take is sent with the next one.
    """

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._open: tuple[Action, ...] = ()
        self._answers: dict[str, Answer] = {}
        self._done: set[str] = set()  # answers that a turn has taken, and actions that are left open
        self._sent: tuple[str, ...] = ()

    def open(self, actions: Sequence[Action]) -> bool:
        """Record the open actions with which a turn has ended; return whether there may be answers to them."""
        self._open = tuple(actions)
        return bool(self.questions() or self.next_results())

    def questions(self) -> list[Question]:
        """Return what is to be asked: approvals first, as people may leave before tools have run."""
        unanswered = (each for each in self._open if each.action_id not in self._answers.keys() | self._done)
        found = [question for each in unanswered if (question := self._responder.question(each)) is not None]
        return sorted(found, key=lambda each: each.is_tool)

    def answered(self, question: Question, value: Any) -> None:
        """Record what a call has returned.

        Raises:
            TypeError: It is no decision.
        """
        action_id = question.action.action_id
        if question.is_tool:
            self._answers[action_id] = tool_answer(action_id, value)
        elif value is None:
            self._done.add(action_id)
        else:
            self._answers[action_id] = Answer(result_of(action_id, value))

    def failed(self, question: Question, error: Exception) -> None:
        """Record that a call has failed: the model sees the error of a tool.

        Raises:
            Exception: The error of an approval callback.
        """
        if not question.is_tool:
            raise error
        _log.warning("tool %s failed", question.action.name, exc_info=error)
        self.answered(question, error)

    def uploads(self) -> list[Upload]:
        """Return the images of answers that must be uploaded."""
        uploads = [Upload(each.image, each.result.output) for each in self._answers.values() if each.image is not None]
        return [each for each in uploads if each.is_due]

    def next_results(self) -> list[pb.ActionResult]:
        """Return the answers of the next request, as many as it takes; none: there are none."""
        found: list[pb.ActionResult] = []
        size = 0
        for each in self._open:
            answer = self._answers.get(each.action_id)
            if answer is None or each.action_id in self._done or len(found) == _MAX_RESULTS:
                continue
            size += answer.result.ByteSize()
            if not found or size <= _MAX_BYTES:
                found.append(answer.result)
        self._sent = tuple(each.action_id for each in found)
        return found

    def delivered(self) -> None:
        """Record that a turn has taken the answers of the last request."""
        self._done.update(self._sent)

    def refuse(self) -> None:
        """Leave open what the last request has answered and only reviewers may."""
        reviewers = (each for each in self._open if each.decider is ActionDecider.REVIEWER)
        self._done.update(each.action_id for each in reviewers if each.action_id in self._sent)


def tool_answer(action_id: str, value: Any) -> Answer:
    """Return the answer of a client tool by what it has returned."""
    if isinstance(value, Deny):
        return Answer(result_of(action_id, value))
    output = output_of(value)
    if isinstance(output, bytes):
        return Answer(pb.ActionResult(action_id=action_id, output=pb.ClientToolOutput()), output)
    return Answer(pb.ActionResult(action_id=action_id, output=output))


def answers_to(actions: Sequence[Action], given: Mapping[str, object]) -> list[Answer]:
    """Return the answers that a caller gives to open actions.

    Raises:
        ValueError: There is no such action, or no answer.
        TypeError: One to an approval is no decision.
    """
    kinds = {each.action_id: each.kind for each in actions}
    if unknown := [each for each in given if each not in kinds]:
        raise ValueError(f"there is no open action {unknown[0]!r}: turn.actions has {list(kinds) or 'none'}")
    found = [
        tool_answer(action_id, value)
        if kinds[action_id] is ActionKind.CLIENT_TOOL
        else Answer(result_of(action_id, value))  # type: ignore[arg-type] # checked there
        for action_id, value in given.items()
        if value is not None or kinds[action_id] is ActionKind.CLIENT_TOOL
    ]
    if not found:
        raise ValueError("there is no answer")
    return found


def _unknown(name: str) -> Any:
    raise UnknownTool(f"there is no tool {name}")

"""The calls of a step that waits for answers, as values: those that ask are actions. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final


class CallKind(StrEnum):
    """What a tool call of a waiting step needs."""

    TOOL = "tool"  # nothing
    APPROVAL = "approval"
    CLIENT = "client"  # the caller runs it


class ActionState(StrEnum):
    """The state of an action."""

    OPEN = "open"
    DECIDED = "decided"
    EXPIRED = "expired"
    CLOSED = "closed"


class Verdict(StrEnum):
    """An answer to an action."""

    APPROVE = "approve"
    DENY = "deny"
    OUTPUT = "output"  # of a client tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer.

    Attributes:
        action_id: The action.
        verdict: What is answered.
        input_json: Another input of an approved call, as JSON; empty: the model's.
        why: Why a call is denied, or why a client tool failed; may be empty.
        failed: A client tool failed.
        output_text: The output of a client tool; None: it is none, or not a text.
        output_json: The output of a client tool as JSON; None: likewise.
        attachment_id: The image that is the output of a client tool; None: likewise.
    """

    action_id: str
    verdict: Verdict
    input_json: str = ""
    why: str = ""
    failed: bool = False
    output_text: str | None = None
    output_json: str | None = None
    attachment_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Who answers.

    Attributes:
        key_id: The API key.
        reviews: The key has the scope approve.
        user: The person, as the request names them; empty: it does not.
    """

    key_id: str
    reviews: bool = False
    user: str = ""


NO_DECIDER: Final = Decider(key_id="")  # the request answers nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer that counts.

    Attributes:
        answer: The answer.
        key_id: The API key that gave it.
        user: The person; empty: not named.
        time: When it was given.
    """

    answer: Answer
    key_id: str
    user: str
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Callee:
    """A sub-agent that waits inside the call that runs it.

    Attributes:
        path: Its path.
        name: The agent's name.
        version: The number of the version that it began with.
        steps: The number of its steps with tools, the waiting one included.
        messages: Its conversation as JSON; it ends with the calls of the waiting step.
    """

    path: str
    name: str
    version: int
    steps: int
    messages: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCall:
    """A tool call of a waiting step.

    Attributes:
        call_id: Its id; of an action, the id of the action.
        step_id: The step of the turn.
        tenant_id: The tenant.
        session_uid: The generated id of the session.
        session_id: The caller's id of the session.
        turn_id: The turn that asked.
        path: The agent that called the tool; empty: the turn's own.
        number: The number of the agent's step with tools.
        place: The place of the call in its answer: 0, 1, 2 …
        tool_call_id: The id that the model gave it.
        name: The name of the tool.
        input_json: The input, as JSON.
        kind: What it needs.
        reviewer: A key of the scope approve must answer.
        why: Why approval is needed; may be empty.
        create_time: When the turn asked.
        expire_time: When an action expires.
        state: The state of an action.
        decision: The answer to an action.
        started: The tool was started.
        result: The result, as Strands has it without the id; None: there is none.
        callee: The sub-agent that waits in it; None: none does.
        closes_on_expiry: Without an answer in time it closes the step, which else goes on without it.
        next_turn_id: The turn that took the answer, or closed the action; empty: none.
    """

    call_id: str
    step_id: str
    tenant_id: str
    session_uid: str
    session_id: str
    turn_id: str
    path: str
    number: int
    place: int
    tool_call_id: str
    name: str
    input_json: str
    kind: CallKind
    create_time: datetime
    expire_time: datetime
    reviewer: bool = False
    why: str = ""
    state: ActionState = ActionState.OPEN
    decision: Decision | None = None
    started: bool = False
    result: dict[str, Any] | None = field(default=None)
    callee: Callee | None = None
    closes_on_expiry: bool = False
    next_turn_id: str = ""

    @property
    def asks(self) -> bool:
        """Whether it is an action."""
        return self.kind is not CallKind.TOOL

    @property
    def is_open(self) -> bool:
        """Whether it is an action without an answer."""
        return self.asks and self.state is ActionState.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The step of a turn that waits: what the answering turn needs of the asking one.

    Attributes:
        step_id: Its id.
        tenant_id: The tenant.
        session_uid: The generated id of the session.
        session_id: The caller's id of the session.
        message: The number of the session's message that has the calls.
        turn_ids: The turns that have worked on the user's message, the first one first.
        key_id: The API key that asked; None: none.
        agent: The name of the agent.
        agent_version: The number of its version.
        model: The model.
        request: What the request had set, as JSON text.
        create_time: When the turn asked.
        expire_time: When its actions expire.
        closed: The session has gone on.
        attempts: How often a server tried to go on by itself.
    """

    step_id: str
    tenant_id: str
    session_uid: str
    session_id: str
    message: int
    turn_ids: tuple[str, ...]
    key_id: str | None
    agent: str
    agent_version: int
    model: str
    request: str
    create_time: datetime
    expire_time: datetime
    closed: bool = False
    attempts: int = 0

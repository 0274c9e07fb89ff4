"""What a turn may be given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from godoty.actions.approvals import ApprovalCallback
from godoty.actions.tools import Tool
from godoty.types import ActionResult, Attachment, ModelParameters, OnBusy, OnDisconnect, TurnLimits

AttachmentInput = Attachment | Path | bytes | str
"""An attachment: its bytes; a file, as `Path` or as text; an https URL, which the server reads; or an uploaded
`Attachment` or its id ("att_…")."""


class RequestOptions(TypedDict, total=False):
    """What each request for a turn may have."""

    request_id: str
    """The idempotency key: the same id with the same request reads the same turn, without a second charge. Without it,
    a generated one, which the client's own retries use. Client tools of a program that begins again run again."""
    on_busy: OnBusy | str
    """What happens while another turn of the session runs: "reject" (the default: `SessionBusy`) or "wait"."""


class MessageOptions(RequestOptions, total=False):
    """What a message may have beside its text."""

    session: str
    """The session's id, which is created on its first use. Without it, a new session with a generated id
    (`turn.session_id`)."""
    agent: str
    """The agent, by name or name@version. Without it, the session's, else "assistant"."""
    model: str
    """The model. Without it, the agent's, else the session's last one, else the default."""
    fallback_models: Sequence[str]
    """The models to try, in this order, if `model` is unavailable."""
    user: str
    """The tenant's end user."""
    variables: Mapping[str, str]
    """Values for the placeholders of the agent's prompt."""
    parameters: ModelParameters
    """Parameters of the model calls, in place of the agent's, one by one."""
    limits: TurnLimits
    """Limits of the turn, its cost among them (`max_cost_usd`)."""
    attachments: Sequence[AttachmentInput]
    """Images and PDF documents that the message carries, at most 10."""


class ReadingOptions(TypedDict, total=False):
    """What reading a turn may have."""

    tools: Sequence[Callable[..., Any] | Tool]
    """The client tools of the turn, functions or `Tool`s, in place of the client's (`@client.tool`); empty for none.
    Calls of the model run them, and the turn goes on with their results. Without any, calls of tools of the caller's
    are left open (`turn.actions`)."""
    approve: ApprovalCallback
    """Decides on tool calls that need approval, one after another, and the turn goes on with its answers. What it
    leaves open, and what the key may not decide (`Action.decider`), is in `turn.actions` at the end. Without it, all
    are."""
    on_disconnect: OnDisconnect | str
    """What happens once the turn has no reader: "cancel" (the default), or "continue": then leaving early does not
    cancel it, and `resume` reads the rest."""
    timeout: float
    """Deadline of the whole turn, with its tools and approvals, in seconds: after it the turn is cancelled, and
    `DeadlineExceeded` raised. Without it, none. Functions then run in threads of their own."""


class TurnOptions(ReadingOptions, RequestOptions, total=False):
    """What a turn that goes on with answers may be given."""


class ConverseOptions(ReadingOptions, MessageOptions, total=False):
    """What a turn may be given beside its text."""

    action_results: Sequence[ActionResult]
    """Answers to open actions of the session, in place of a text: the turn that asked goes on, as it was."""

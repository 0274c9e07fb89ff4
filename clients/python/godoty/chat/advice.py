"""Advice for the user by error reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from godoty.errors import GodotyError

_SEND_AGAIN = "/retry answers the message again; /cost shows the cost so far"
_OTHER_MODEL = "choose another model with /models"

BY_REASON = {
    "MALFORMED_REQUEST": "update the client: the server may be of another version",
    "INVALID_FIELD": "change the field named and send the message again",
    "UNKNOWN_MODEL": _OTHER_MODEL,
    "INVALID_API_KEY": "check GODOTY_API_KEY, --api-key or .local/dev.env, which `make run` writes",
    "SCOPE_MISSING": "use a key with the scope `converse`",
    "SESSION_NOT_FOUND": "/sessions lists the sessions",
    "SESSION_BUSY": "another turn of the session is running: wait for its end, or start a /new session",
    "STORAGE_UNAVAILABLE": "try again in a moment; nothing was charged",
    "SHUTTING_DOWN": "try again in a moment: another server answers",
    "PROVIDER_ACCOUNT_REFUSED": "ask the operator to check the service's account at the provider",
    "PROVIDER_THROTTLED": "wait a little, or choose another model with /models",
    "PROVIDER_UNAVAILABLE": _SEND_AGAIN,
    "PROVIDER_REJECTED_REQUEST": _OTHER_MODEL,
    "CONTEXT_WINDOW_EXCEEDED": "choose a model with a larger context window with /models, or start a /new session",
    "MODEL_UNAVAILABLE": _OTHER_MODEL,
    "INTERNAL": "try once more, and report it if it persists",
    "TURN_CANCELLED": _SEND_AGAIN,
    "DEADLINE_EXCEEDED": _SEND_AGAIN,
    "SESSION_LOST": _SEND_AGAIN,
    "REQUEST_ID_REUSED": "send the message again: the chat uses a new request id",
    "TURN_NOT_FOUND": "its log has expired; /cost shows the cost",
    "TURN_TOO_LARGE": "request less in one turn",
    "BUDGET_SPENT": "ask the administrator to raise the budget, or wait for the next window",
    "BUDGET_RESERVED": "wait until the running turns have ended",
    "COST_UNBOUNDED": _OTHER_MODEL,
    "MAX_COST_TOO_LOW": "raise the turn's maximum cost",
    "RATE_LIMITED": "wait a little",
    "TOO_MANY_TURNS": "wait until one of the running turns has ended",
    "MODEL_NOT_ALLOWED": _OTHER_MODEL,
    "TENANT_NOT_FOUND": "check the tenant's id",
    "API_KEY_NOT_FOUND": "check the key's id",
    "CALL_NOT_FOUND": "check the model call's id",
    "CALL_NOT_ADJUSTABLE": "wait until the call's cost is known, or resolve it first",
    "AMOUNT_REFUSED": "choose an amount between 0 and the call's upper bound",
    "MESSAGE_NOT_FOUND": "check the message's number",
    "RESPONSE_TOO_LARGE": "request a smaller page",
    "TOO_MANY_WRONG_KEYS": "wait a moment, and check the key",
    "AGENT_NOT_FOUND": "`godoty agent list` lists the agents",
    "AGENT_MISMATCH": "start a session with this agent by /agent NAME, or leave --agent out",
    "AGENT_NOT_ALLOWED": "choose another agent with /agent",
    "TOOL_NOT_ALLOWED": "ask the administrator to change the policy, or the agent's definition",
    "AGENT_LIMIT": "apply a version of an existing agent",
    "MCP_SERVER_NOT_FOUND": "`godoty mcp list` lists the MCP servers",
    "MCP_SERVER_LIMIT": "delete an MCP server that is no longer used",
    "ATTACHMENT_NOT_FOUND": "attach the file again with /attach PATH",
    "ATTACHMENT_REJECTED": "attach an image (PNG, JPEG, WebP or GIF) or a PDF within the limits",
    "ATTACHMENT_LIMIT": "delete sessions whose attachments are no longer needed",
    "INPUT_NOT_SUPPORTED": _OTHER_MODEL,
    "ACTION_NOT_FOUND": "/approve asks for what the session waits for",
    "ACTION_DECIDED": "another answer came first: ListActions has it",
    "ACTION_CLOSED": "go on with the conversation: it needs no answer to the action any more",
    "ACTION_EXPIRED": "ask again for what the action was to do",
    "REVIEWER_ONLY": "ask a reviewer, whose key has the scope `approve`",
    "WEBHOOK_NOT_FOUND": "`godoty webhook list` lists the webhooks",
    "WEBHOOK_LIMIT": "delete a webhook that is no longer used",
    "WEBHOOK_OFF": "switch it on with `godoty webhook apply`",
    "DELIVERY_NOT_FOUND": "`godoty webhook deliveries` lists the deliveries",
    "API_KEY_CREATED": "revoke the key if its text was lost, and send the request with another id",
    "SESSION_EXISTS": "choose another session id",
    "FORK_POINT_REFUSED": "choose a message of yours, or an answer",
    "SESSION_TOO_LARGE": "fork it at an earlier message",
    "ETAG_MISMATCH": "read it again, and send the change with its etag",
    "OUTPUT_NOT_ALLOWED": "ask the administrator to change the policy",
    "OPERATOR_ONLY": "use a key of the operator",
    "PROVIDER_KEYS_OFF": "ask the operator to set GODOTY_ENCRYPTION_KEYS",
    "TENANT_SUSPENDED": "ask the operator to resume the tenant",
    "TENANT_DELETED": "use another tenant",
    "TENANT_EXISTS": "choose another id",
    "USER_NOT_FOUND": "check the end user's name",
    "ERASURE_UNFINISHED": "send the same request again, to wait for its end",
}
"""By `godoty.v1.ErrorReason`, without its prefix."""

_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: "is the server running at {target}? `make run` starts one",
    grpc.StatusCode.UNIMPLEMENTED: "the server at {target} does not support this call: update it",
    grpc.StatusCode.DEADLINE_EXCEEDED: "the server at {target} is slow or unreachable: try again",
}


def advise(error: GodotyError, *, target: str) -> str:
    """Return one line with the error, the advice and the delay before a retry."""
    text = str(error) + "".join(
        f" [{violation.field}: {violation.description}]" for violation in error.field_violations
    )
    advice = BY_REASON.get(error.reason) or _BY_CODE.get(error.code, "").format(target=target)
    wait = ""
    if error.retry_delay is not None:
        wait = f"try again in {error.retry_delay.total_seconds():g} s"
    return " — ".join(part for part in (" ".join(text.split()), advice, wait) if part)

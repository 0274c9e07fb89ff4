"""An error class for each reason. Made from the protos by `make gen`: not to be edited."""

from __future__ import annotations

from godoty.errors import GodotyError


__all__ = [
    "ActionClosed",
    "ActionDecided",
    "ActionExpired",
    "ActionNotFound",
    "AgentLimit",
    "AgentMismatch",
    "AgentNotAllowed",
    "AgentNotFound",
    "AmountRefused",
    "ApiKeyCreated",
    "ApiKeyNotFound",
    "AttachmentLimit",
    "AttachmentNotFound",
    "AttachmentRejected",
    "BudgetReserved",
    "BudgetSpent",
    "CallNotAdjustable",
    "CallNotFound",
    "ContextWindowExceeded",
    "CostUnbounded",
    "DeadlineExceeded",
    "DeliveryNotFound",
    "ErasureUnfinished",
    "EtagMismatch",
    "ForkPointRefused",
    "InputNotSupported",
    "InternalError",
    "InvalidApiKey",
    "InvalidField",
    "MalformedRequest",
    "MaxCostTooLow",
    "McpServerLimit",
    "McpServerNotFound",
    "MessageNotFound",
    "ModelNotAllowed",
    "ModelUnavailable",
    "OperatorOnly",
    "OutputNotAllowed",
    "ProviderAccountRefused",
    "ProviderKeysOff",
    "ProviderRejectedRequest",
    "ProviderThrottled",
    "ProviderUnavailable",
    "RateLimited",
    "RequestIdReused",
    "ResponseTooLarge",
    "ReviewerOnly",
    "ScopeMissing",
    "SessionBusy",
    "SessionExists",
    "SessionLost",
    "SessionNotFound",
    "SessionTooLarge",
    "ShuttingDown",
    "StorageUnavailable",
    "TenantDeleted",
    "TenantExists",
    "TenantNotFound",
    "TenantSuspended",
    "TooManyTurns",
    "TooManyWrongKeys",
    "ToolNotAllowed",
    "TurnCancelled",
    "TurnNotFound",
    "TurnTooLarge",
    "UnknownModel",
    "UserNotFound",
    "WebhookLimit",
    "WebhookNotFound",
    "WebhookOff",
]


class MalformedRequest(GodotyError):
    """INVALID_ARGUMENT. The request's bytes cannot be decoded as the method's message, for example because of a string
    that is not UTF-8; or the request is larger than its fields allow together. Do not retry. For example: the bytes
    "{}", which are JSON.
    """


class InvalidField(GodotyError):
    """INVALID_ARGUMENT. One or more fields are invalid; google.rpc.BadRequest names each with its constraint. Do not
    retry unchanged. For example: `session_id: must match [A-Za-z0-9._:-]{1,128}`.
    """


class UnknownModel(GodotyError):
    """INVALID_ARGUMENT. The model is not in the provider's catalogue; google.rpc.BadRequest names the field. metadata:
    model. Do not retry unchanged. For example: Converse with a model that was removed from the catalogue. metadata:
    model=openai/gpt-99.
    """


class InvalidApiKey(GodotyError):
    """UNAUTHENTICATED. The metadata `authorization: Bearer gdt_...` is missing, or the key is unknown, expired or
    revoked. Do not retry with the same key. A waiting or running turn ends with this error within 5 seconds after
    the key that started it is revoked or expires. For example: the key was revoked a minute ago.
    """


class ScopeMissing(GodotyError):
    """PERMISSION_DENIED. The key is valid but lacks the scope that the method requires. metadata: scope. Do not retry
    with the same key. For example: a key of the scope `converse` calls GetUsage. metadata: scope=billing.
    """


class SessionNotFound(GodotyError):
    """NOT_FOUND. The tenant has no such session. metadata: session_id. Do not retry. For example: GetSession of a
    deleted session. metadata: session_id=first.
    """


class SessionBusy(GodotyError):
    """ABORTED. Another turn of the session is running. google.rpc.RetryInfo has the delay: 1 s if this server runs that
    turn, else the remaining time of the other server's lease. If that server is dead, the session is free then. For
    example: a second Converse in the session before the first has ended, `on_busy` unset; retry in 1 s.
    """


class StorageUnavailable(GodotyError):
    """UNAVAILABLE. The database is unreachable, has no primary or does not respond; calls that wait for it fail within
    5 seconds. This call charged nothing; but a turn with ON_DISCONNECT_CONTINUE may still run once the database
    responds. Retry with backoff, first after the delay in google.rpc.RetryInfo, a turn with its `request_id`. For
    example: the database elects a new primary, which takes about 10 s.
    """


class ShuttingDown(GodotyError):
    """UNAVAILABLE. The server is stopping and accepts no new turns. Retry: another server answers. google.rpc.RetryInfo
    has the delay. For example: a new version is being rolled out.
    """


class ProviderAccountRefused(GodotyError):
    """UNAVAILABLE. The provider rejected this service's account (an invalid key, no credits, a blocked region). The
    operator is alerted; retrying soon does not help. metadata: provider_code, provider if known, provider_message if
    the tenant's own provider key was rejected. For example: the account's credits are used up. metadata:
    provider_code=402.
    """


class ProviderThrottled(GodotyError):
    """UNAVAILABLE. The provider's rate limit is reached. google.rpc.RetryInfo has the delay. metadata: provider_code,
    provider if known, provider_message if the provider sent one. For example: a free model at its limit. metadata:
    provider_code=429, provider=Google, provider_message=... is temporarily rate-limited upstream.
    """


class ProviderUnavailable(GodotyError):
    """UNAVAILABLE. The provider failed, timed out, closed the connection or sent an unreadable response. The cost up to
    then is in the ledger. Retry with backoff, first after the delay in google.rpc.RetryInfo. metadata: provider_code
    (a status, or a word for the fault), provider if known, provider_message if the provider sent one. For example:
    the stream ended in the middle of an answer. metadata: provider_code=connection.
    """


class ProviderRejectedRequest(GodotyError):
    """INVALID_ARGUMENT. The provider rejected the request itself, for example because of a parameter that the model
    does not support, or of words that its moderation flagged: those remain in the conversation, but are not sent to
    a model again. Do not retry unchanged. A provider's message has at most 500 characters, without keys and control
    characters. metadata: provider_code, provider if known, provider_message if the provider sent one. For example: a
    parameter out of range. metadata: provider_code=400, provider=OpenAI, provider_message=temperature must be below
    2.
    """


class ContextWindowExceeded(GodotyError):
    """FAILED_PRECONDITION. The conversation exceeds the model's context window. Choose a model with a larger one, or
    start another session. metadata: provider_code, provider if known, provider_message if the provider sent one. For
    example: a pasted text of 300,000 tokens, to a model with a context window of 128,000. metadata:
    provider_code=400, provider_message=This endpoint's maximum context length is 128000 tokens.
    """


class ModelUnavailable(GodotyError):
    """FAILED_PRECONDITION. No provider serves the model at the moment. Choose another, or name fallback models.
    metadata: model, provider_code, provider if known, provider_message if the provider sent one. For example: all
    providers of a model are down. metadata: model=deepseek/deepseek-v3.2, provider_code=404, provider_message=No
    endpoints found.
    """


class InternalError(GodotyError):
    """INTERNAL. An internal error of the server; the log has it under this id, which is that of the turn if a turn
    failed. Retry once; report it if it persists. metadata: request_id. For example: a fault while the end of a turn
    is written. metadata: request_id=turn_01a2....
    """


class TurnCancelled(GodotyError):
    """CANCELLED. The turn was cancelled before its answer was complete. The cost up to then is in the ledger. For
    example: CancelTurn in the middle of an answer, or the last reader has disconnected.
    """


class DeadlineExceeded(GodotyError):
    """DEADLINE_EXCEEDED. The turn exceeded the server's time limit, 1 hour by default; the cost up to then is in the
    ledger. Or the request's message did not arrive in time, 10 s by default; nothing was done. If the caller's own
    deadline passes first, gRPC ends the call itself, without a reason. Request less in one turn. For example: a turn
    that calls tools for more than an hour.
    """


class SessionLost(GodotyError):
    """ABORTED. Another server acquired the session, or the session was deleted, while this turn ran. The cost up to
    then is in the ledger. google.rpc.RetryInfo has the delay. For example: the server had no connection to the
    database for longer than its lease of 15 s; retry in 1 s.
    """


class RequestIdReused(GodotyError):
    """ALREADY_EXISTS. The request id was used for another request, or by another key of an administrator. Do not retry
    with the same id. metadata: adjustment_id if the id is that of an adjustment. For example: request id "order-7"
    was used with the text "hi" an hour ago, and is now used with "hello".
    """


class TurnNotFound(GodotyError):
    """NOT_FOUND. The tenant has no such turn, or its log has expired. From Converse: the request id is that of a turn
    that was deleted with its session; another id begins a new turn. metadata: turn_id. Do not retry. For example:
    ResumeTurn of a turn that ended two days ago. metadata: turn_id=turn_01a2....
    """


class TurnTooLarge(GodotyError):
    """RESOURCE_EXHAUSTED. The turn exceeded the maximum size of its log (8 MiB) and was ended. The cost up to then is
    in the ledger. Request less in one turn. For example: a tool printed 10 MB.
    """


class BudgetSpent(GodotyError):
    """RESOURCE_EXHAUSTED. The rest of a hard budget does not cover an answer of 256 tokens, or of the number requested
    if that is smaller. google.rpc.QuotaFailure names the window. Do not retry before the window ends or the budget
    is raised. Amounts are exact decimals in US dollars. metadata: limit_usd, spent_usd, held_usd (the upper bounds
    of open calls), needed_usd (the upper bound of the rejected call). For example: 9.999 of 10 USD a day are spent,
    and the call may cost 0.0021. Quota: budget/day. metadata: limit_usd=10, spent_usd=9.999, held_usd=0,
    needed_usd=0.0021.
    """


class BudgetReserved(GodotyError):
    """RESOURCE_EXHAUSTED. The call does not fit the tenant's budget at the moment, because of the reservations of open
    calls, or because the server's clock is still in a day or month that has ended on other servers.
    google.rpc.RetryInfo has the delay, google.rpc.QuotaFailure names the window. Amounts are those of
    ERROR_REASON_BUDGET_SPENT. metadata: limit_usd, spent_usd, held_usd, needed_usd. For example: 9 of 10 USD are
    spent, and nine open calls may cost 0.11 each. Quota: budget/day. metadata: limit_usd=10, spent_usd=9,
    held_usd=0.99, needed_usd=0.11.
    """


class CostUnbounded(GodotyError):
    """FAILED_PRECONDITION. Under a hard budget or `max_cost_usd`, the model cannot be called: its cost has no finite
    bound, because a price is unknown. metadata: model, and server_tools if one of the agent's has no finite bound.
    Choose another model, or another engine of that tool. For example: openrouter/auto, whose price depends on the
    model that it selects. metadata: model=openrouter/auto.
    """


class MaxCostTooLow(GodotyError):
    """RESOURCE_EXHAUSTED. The turn's `max_cost_usd` does not cover an answer of 256 tokens, or of the number requested
    if that is smaller, for its first model call. Raise it, or request fewer output tokens. google.rpc.QuotaFailure
    names the limit, amounts are those of ERROR_REASON_BUDGET_SPENT. metadata: limit_usd, spent_usd, held_usd,
    needed_usd. For example: `max_cost_usd` is "0.0001", and the call may cost 0.003. Quota: turn/max_cost_usd.
    metadata: limit_usd=0.0001, spent_usd=0, held_usd=0, needed_usd=0.003.
    """


class RateLimited(GodotyError):
    """RESOURCE_EXHAUSTED. The tenant or the API key has reached its limit of turns per minute, or the tenant its limit
    of open calls on the server; or, for health checks and reflection, the caller's address has reached its limit.
    google.rpc.RetryInfo has the delay, google.rpc.QuotaFailure names the limit. Without RetryInfo the limit is 0: do
    not retry before the policy is changed, or with the same key. For example: the 61st turn in a minute, with a
    limit of 60. Quota: turns/minute.
    """


class TooManyTurns(GodotyError):
    """RESOURCE_EXHAUSTED. The tenant has reached its limit of concurrent turns. google.rpc.RetryInfo has the delay,
    google.rpc.QuotaFailure names the limit. Without RetryInfo the limit is 0: do not retry before the policy is
    changed. For example: the eleventh turn, with a limit of ten. Quota: turns/concurrent.
    """


class ModelNotAllowed(GodotyError):
    """PERMISSION_DENIED. The tenant's policy or the API key's own list does not allow the model. metadata: model.
    Choose another model. For example: "openai/*" is allowed. metadata: model=anthropic/claude-haiku-4.5.
    """


class TenantNotFound(GodotyError):
    """NOT_FOUND. The tenant does not exist, or the key may not access it. metadata: tenant_id. For example: GetUsage
    for another tenant by a key that is not the operator's. metadata: tenant_id=tnt_01a2....
    """


class ApiKeyNotFound(GodotyError):
    """NOT_FOUND. The tenant has no such API key; or it is expired or revoked, and RotateApiKey needs one that is valid.
    metadata: api_key_id. Do not retry. For example: RevokeApiKey with another tenant's key. metadata:
    api_key_id=182c3d7f0e9d5a67.
    """


class ProviderKeysOff(GodotyError):
    """FAILED_PRECONDITION. A tenant's own OpenRouter key, or a secret of one of its MCP servers, cannot be stored, or
    the stored one cannot be decrypted: the server has no encryption key for it. The operator sets
    GODOTY_ENCRYPTION_KEYS. Retry after that. For example: SetProviderKey on a server without GODOTY_ENCRYPTION_KEYS.
    """


class CallNotFound(GodotyError):
    """NOT_FOUND. The tenant's ledger has no such model call. metadata: call_id. Do not retry. For example: AdjustCall
    with the id of another tenant's call. metadata: call_id=call_01a2....
    """


class CallNotAdjustable(GodotyError):
    """FAILED_PRECONDITION. The call has no cost to adjust: it is pending (retry once it is closed), or it is unresolved
    (resolve it first, with `godoty ledger resolve`). metadata: call_id, state. For example: AdjustCall while the
    call's answer is still streamed. metadata: call_id=call_01a2..., state=pending.
    """


class AmountRefused(GodotyError):
    """FAILED_PRECONDITION. With this amount the call's total would be below zero, above its upper bound without
    `above_bound`, or outside the range of amounts (1,000,000 USD, 25 decimals). Do not retry unchanged. metadata:
    call_id, total_usd if the resulting total is known, upper_bound_usd if that is exceeded. For example: AdjustCall
    adds "-1" to a call of 0.0114 USD. metadata: call_id=call_01a2..., total_usd=-0.9886.
    """


class TooManyWrongKeys(GodotyError):
    """RESOURCE_EXHAUSTED. Many invalid API keys came from the caller's address, and this key is not yet known to the
    server: it was not checked. Keys in use are not affected. google.rpc.RetryInfo has the delay,
    google.rpc.QuotaFailure names the limit. For example: a new key, first used behind a proxy that also forwards a
    client that guesses keys; retry in 0.2 s. Quota: key_lookups/second.
    """


class ResponseTooLarge(GodotyError):
    """RESOURCE_EXHAUSTED. The response would exceed 3 MiB, which clients reject by default. Request a smaller page.
    metadata: bytes. For example: a list with a single entry that is larger than that. metadata: bytes=3500000.
    """


class MessageNotFound(GodotyError):
    """NOT_FOUND. The session has no message of this number. metadata: session_id, number. Do not retry. For example:
    ReadMessage of message 7 in a session that has 6. metadata: session_id=first, number=7.
    """


class EtagMismatch(GodotyError):
    """ABORTED. The request's `etag` is not that of the resource, which was changed since it was read; nothing is
    changed. To retry: read the resource again, apply the change to what it is now, and send it with its etag. Also
    if, without an etag, others changed the resource again and again meanwhile: retry unchanged then. metadata: etag
    (the present one). For example: two administrators read a policy, and both send a change with its etag; the
    second is refused. metadata: etag=9f86d081884c7d65.
    """


class OutputNotAllowed(GodotyError):
    """PERMISSION_DENIED. The tenant's policy allows no output tokens: its `max_output_tokens` is 0. No turn is started.
    Do not retry before the policy is changed. For example: Converse of a tenant whose policy was closed by setting
    the limit to 0.
    """


class OperatorOnly(GodotyError):
    """PERMISSION_DENIED. The key has the scope `admin` for its own tenant, and the call needs a key of the operator:
    its method does, or it concerns an API key that may do more than the caller's. metadata: method. Do not retry
    with the same key. For example: CreateApiKey with `operator` by a key that is not the operator's. metadata:
    method=CreateApiKey.
    """


class ApiKeyCreated(GodotyError):
    """ALREADY_EXISTS. The request created an API key before; no second one was created. The key's text was in the first
    response only, and is not stored. metadata: api_key_id. If that response was lost: revoke the key, and send the
    request with another id. Do not retry with the same id. For example: CreateApiKey with the request id "bot-7",
    whose first response was lost with the connection. metadata: api_key_id=182c3d7f0e9d5a67.
    """


class TenantSuspended(GodotyError):
    """PERMISSION_DENIED. The operator has suspended the tenant. A waiting or running turn that would make another model
    call ends with this error, within 5 seconds after the suspension; the cost up to then is in the ledger. Keys of
    the scope `billing` still read. Do not retry before the operator resumes the tenant. metadata: tenant_id. For
    example: Converse of a tenant that has not paid. metadata: tenant_id=acme.
    """


class TenantDeleted(GodotyError):
    """FAILED_PRECONDITION. The tenant is deleted: its ledger can be read, but nothing of it can be changed, except for
    the cost of its calls. A waiting or running turn ends with this error within 5 seconds after the deletion; the
    cost up to then is in the ledger. Do not retry. metadata: tenant_id. For example: CreateApiKey for a tenant that
    was deleted a year ago. metadata: tenant_id=acme.
    """


class TenantExists(GodotyError):
    """ALREADY_EXISTS. The id is that of a tenant, or of one that was deleted: ids are never used again. Do not retry
    with the same id. metadata: tenant_id. For example: CreateTenant with the id of a tenant that was deleted a year
    ago. metadata: tenant_id=acme.
    """


class UserNotFound(GodotyError):
    """NOT_FOUND. The tenant has no end user of this name: no turn has named one, or the user was erased. Do not retry.
    For example: EraseUser for the second time, without a request id.
    """


class ErasureUnfinished(GodotyError):
    """UNAVAILABLE. The erasure of the end user takes longer than the call waits (30 s), and goes on. metadata:
    user_reference, request_id. Retry the request with this request_id to wait for its end: without one, it may erase
    a new user of the name. google.rpc.RetryInfo has the delay. For example: EraseUser while a server that runs one
    of the user's turns does not answer. metadata: user_reference=user_5f2c..., request_id=erase-1.
    """


class AgentNotFound(GodotyError):
    """NOT_FOUND. The tenant has no such agent, the agent has no such version, or it is deleted and no session can begin
    with it. metadata: agent. Do not retry. For example: Converse in a new session with an agent that was not
    applied. metadata: agent=support.
    """


class AgentMismatch(GodotyError):
    """FAILED_PRECONDITION. The session has another agent than the one that the request names: begin another session, or
    name no agent. metadata: session_id, agent (the session's). Do not retry. For example: Converse with the agent
    `sales` in a session of `support`. metadata: session_id=first, agent=support.
    """


class AgentLimit(GodotyError):
    """RESOURCE_EXHAUSTED. The tenant has 1000 agents, deleted ones included, or the agent has 10000 versions. metadata:
    limit. Do not retry. For example: ApplyAgent for a 1001st name. metadata: limit=1000.
    """


class McpServerNotFound(GodotyError):
    """NOT_FOUND. The tenant has no MCP server of this name: as the request names it, or one of the tools of the
    definition in it. metadata: mcp_server. Do not retry. For example: ApplyAgent with tools of a server that is
    another tenant's. metadata: mcp_server=crm.
    """


class McpServerLimit(GodotyError):
    """RESOURCE_EXHAUSTED. The tenant has 50 MCP servers: delete one first. metadata: limit. Do not retry. For example:
    ApplyMcpServer for a 51st name. metadata: limit=50.
    """


class AgentNotAllowed(GodotyError):
    """PERMISSION_DENIED. The tenant's policy does not allow the agent. metadata: agent. Do not retry. For example:
    Converse with `assistant` under a policy that allows "support-*". metadata: agent=assistant.
    """


class ToolNotAllowed(GodotyError):
    """PERMISSION_DENIED. The tenant's policy does not allow a tool of the agent. metadata: agent, tool. Do not retry.
    For example: Converse with an agent whose tool was allowed when it was applied. metadata: agent=support,
    tool=calculator.
    """


class AttachmentNotFound(GodotyError):
    """NOT_FOUND. The tenant has no such attachment, or it is deleted. metadata: attachment_id. Do not retry. For
    example: Converse with an attachment that was uploaded two days ago and never named. metadata:
    attachment_id=att_01a2....
    """


class AttachmentRejected(GodotyError):
    """INVALID_ARGUMENT. The bytes are no attachment that the server takes; nothing of them is stored. Do not retry
    unchanged. The problem is "type" (no PNG, JPEG, WebP, GIF or PDF), "damaged" (its header is incomplete or
    contradicts itself), "size", "pixels" or "pages" (above the server's limit), or "url" (it cannot be fetched from
    there). metadata: problem. For example: UploadAttachment of a text file that is called invoice.pdf. metadata:
    problem=type.
    """


class AttachmentLimit(GodotyError):
    """RESOURCE_EXHAUSTED. The tenant's attachments are as many, or have as many bytes, as the server allows for one
    tenant; or 1,000 sessions name the attachment: upload it again. google.rpc.QuotaFailure names the limit. Delete
    sessions that name attachments. metadata: limit. Do not retry before. For example: the 10,001st attachment of a
    tenant. Quota: attachments/tenant. metadata: limit=10000.
    """


class InputNotSupported(GodotyError):
    """FAILED_PRECONDITION. The model, or a fallback model, does not take an input of the message; nothing was sent and
    nothing is charged. Choose a model whose `input_modalities` (ListModels) have it. metadata: model, input. Do not
    retry unchanged. For example: an image for a model that takes text alone. metadata: model=deepseek/deepseek-v3.2,
    input=image.
    """


class ActionNotFound(GodotyError):
    """NOT_FOUND. The tenant has no such action, or the session that the request names has another. metadata: action_id.
    Do not retry. For example: DecideAction with an action of another tenant. metadata: action_id=act_01a2....
    """


class ActionDecided(GodotyError):
    """FAILED_PRECONDITION. The action has another answer, or one of another API key or user: the first one counts.
    ListActions has it. metadata: action_id, api_key_id (of who answered). Do not retry. For example: two people
    answer the same action at once; the second is refused. metadata: action_id=act_01a2...,
    api_key_id=182c3d7f0e9d5a67.
    """


class ActionClosed(GodotyError):
    """FAILED_PRECONDITION. No answer can reach the action any more: the turn has gone on with its answer, a new message
    came instead of it, or the API key that asked was revoked. metadata: action_id, turn_id (if a turn has gone on).
    Do not retry. For example: the same answer is sent once more after the turn went on. metadata:
    action_id=act_01a2..., turn_id=turn_01a2....
    """


class ActionExpired(GodotyError):
    """FAILED_PRECONDITION. No answer to the action came in time: it counts as denied. metadata: action_id. Do not
    retry. For example: an answer after 30 days. metadata: action_id=act_01a2....
    """


class ReviewerOnly(GodotyError):
    """PERMISSION_DENIED. The action is for reviewers, and the key lacks the scope `approve`. metadata: action_id. Do
    not retry with the same key. For example: the caller of a chat approves a transfer that a reviewer must approve.
    metadata: action_id=act_01a2....
    """


class SessionExists(GodotyError):
    """ALREADY_EXISTS. The tenant has a session with the id of the new one, which is no fork at the same point of the
    same session. metadata: session_id. Do not retry with the same id. For example: ForkSession with the id of a
    session that was used yesterday. metadata: session_id=second.
    """


class ForkPointRefused(GodotyError):
    """FAILED_PRECONDITION. The session cannot be forked at this message: it has tool calls or their results. Fork it at
    the user's message before them, or after the answer that follows. metadata: session_id, number. Do not retry
    unchanged. For example: ForkSession at the result of a tool. metadata: session_id=first, number=3.
    """


class SessionTooLarge(GodotyError):
    """RESOURCE_EXHAUSTED. The session has more messages than a copy may have (100,000); google.rpc.QuotaFailure names
    the limit. Fork it at an earlier message. metadata: limit. Do not retry unchanged. For example: ForkSession of a
    session of 250,000 messages. Quota: messages/copy. metadata: limit=100000.
    """


class WebhookNotFound(GodotyError):
    """NOT_FOUND. The tenant has no webhook of this name. metadata: webhook_name. Do not retry. For example:
    ListDeliveries of a webhook that is another tenant's. metadata: webhook_name=billing.
    """


class WebhookLimit(GodotyError):
    """RESOURCE_EXHAUSTED. The tenant has 20 webhooks: delete one first. metadata: limit. Do not retry. For example:
    ApplyWebhook for a 21st name. metadata: limit=20.
    """


class DeliveryNotFound(GodotyError):
    """NOT_FOUND. The webhook has no delivery of the event: it took no event of this type, or the delivery has expired.
    metadata: webhook_name, event_id. Do not retry. For example: RedeliverEvent of an event of last month. metadata:
    webhook_name=billing, event_id=evt_01a2....
    """


class WebhookOff(GodotyError):
    """FAILED_PRECONDITION. The webhook is switched off. metadata: webhook_name. Enable it by ApplyWebhook first. For
    example: RedeliverEvent after the server has switched a dead endpoint off. metadata: webhook_name=billing.
    """


BY_REASON: dict[str, type[GodotyError]] = {
    "MALFORMED_REQUEST": MalformedRequest,
    "INVALID_FIELD": InvalidField,
    "UNKNOWN_MODEL": UnknownModel,
    "INVALID_API_KEY": InvalidApiKey,
    "SCOPE_MISSING": ScopeMissing,
    "SESSION_NOT_FOUND": SessionNotFound,
    "SESSION_BUSY": SessionBusy,
    "STORAGE_UNAVAILABLE": StorageUnavailable,
    "SHUTTING_DOWN": ShuttingDown,
    "PROVIDER_ACCOUNT_REFUSED": ProviderAccountRefused,
    "PROVIDER_THROTTLED": ProviderThrottled,
    "PROVIDER_UNAVAILABLE": ProviderUnavailable,
    "PROVIDER_REJECTED_REQUEST": ProviderRejectedRequest,
    "CONTEXT_WINDOW_EXCEEDED": ContextWindowExceeded,
    "MODEL_UNAVAILABLE": ModelUnavailable,
    "INTERNAL": InternalError,
    "TURN_CANCELLED": TurnCancelled,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "SESSION_LOST": SessionLost,
    "REQUEST_ID_REUSED": RequestIdReused,
    "TURN_NOT_FOUND": TurnNotFound,
    "TURN_TOO_LARGE": TurnTooLarge,
    "BUDGET_SPENT": BudgetSpent,
    "BUDGET_RESERVED": BudgetReserved,
    "COST_UNBOUNDED": CostUnbounded,
    "MAX_COST_TOO_LOW": MaxCostTooLow,
    "RATE_LIMITED": RateLimited,
    "TOO_MANY_TURNS": TooManyTurns,
    "MODEL_NOT_ALLOWED": ModelNotAllowed,
    "TENANT_NOT_FOUND": TenantNotFound,
    "API_KEY_NOT_FOUND": ApiKeyNotFound,
    "PROVIDER_KEYS_OFF": ProviderKeysOff,
    "CALL_NOT_FOUND": CallNotFound,
    "CALL_NOT_ADJUSTABLE": CallNotAdjustable,
    "AMOUNT_REFUSED": AmountRefused,
    "TOO_MANY_WRONG_KEYS": TooManyWrongKeys,
    "RESPONSE_TOO_LARGE": ResponseTooLarge,
    "MESSAGE_NOT_FOUND": MessageNotFound,
    "ETAG_MISMATCH": EtagMismatch,
    "OUTPUT_NOT_ALLOWED": OutputNotAllowed,
    "OPERATOR_ONLY": OperatorOnly,
    "API_KEY_CREATED": ApiKeyCreated,
    "TENANT_SUSPENDED": TenantSuspended,
    "TENANT_DELETED": TenantDeleted,
    "TENANT_EXISTS": TenantExists,
    "USER_NOT_FOUND": UserNotFound,
    "ERASURE_UNFINISHED": ErasureUnfinished,
    "AGENT_NOT_FOUND": AgentNotFound,
    "AGENT_MISMATCH": AgentMismatch,
    "AGENT_LIMIT": AgentLimit,
    "MCP_SERVER_NOT_FOUND": McpServerNotFound,
    "MCP_SERVER_LIMIT": McpServerLimit,
    "AGENT_NOT_ALLOWED": AgentNotAllowed,
    "TOOL_NOT_ALLOWED": ToolNotAllowed,
    "ATTACHMENT_NOT_FOUND": AttachmentNotFound,
    "ATTACHMENT_REJECTED": AttachmentRejected,
    "ATTACHMENT_LIMIT": AttachmentLimit,
    "INPUT_NOT_SUPPORTED": InputNotSupported,
    "ACTION_NOT_FOUND": ActionNotFound,
    "ACTION_DECIDED": ActionDecided,
    "ACTION_CLOSED": ActionClosed,
    "ACTION_EXPIRED": ActionExpired,
    "REVIEWER_ONLY": ReviewerOnly,
    "SESSION_EXISTS": SessionExists,
    "FORK_POINT_REFUSED": ForkPointRefused,
    "SESSION_TOO_LARGE": SessionTooLarge,
    "WEBHOOK_NOT_FOUND": WebhookNotFound,
    "WEBHOOK_LIMIT": WebhookLimit,
    "DELIVERY_NOT_FOUND": DeliveryNotFound,
    "WEBHOOK_OFF": WebhookOff,
}
"""The classes by their reasons."""

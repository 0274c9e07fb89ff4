"""Names of span attributes: those of OpenTelemetry's GenAI conventions if they exist, otherwise `godoty.*`.

Strands' tracer sets further GenAI attributes by itself; `span_redaction` lists all that may be exported.
"""

from typing import Final

AGENT_NAME: Final = "gen_ai.agent.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"  # the session's id of the caller
ERROR_TYPE: Final = "error.type"  # an entry's `error`
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
PROVIDER_NAME: Final = "gen_ai.provider.name"  # the provider that served the call
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_ID: Final = "gen_ai.response.id"  # the provider's id of the generation
RESPONSE_MODEL: Final = "gen_ai.response.model"  # the model that answered, by the listing's id
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"  # seconds

USAGE_PREFIX: Final = "gen_ai.usage."
# By the counter of a ledger entry; of two names, the second is older than the conventions.
USAGE: Final = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "total_tokens": ("gen_ai.usage.total_tokens",),
    "cache_read_tokens": ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"),
    "cache_write_tokens": ("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_write_input_tokens"),
    "reasoning_tokens": ("gen_ai.usage.reasoning.output_tokens",),
}

TENANT_ID: Final = "godoty.tenant.id"
SESSION_ID: Final = "godoty.session.id"
TURN_ID: Final = "godoty.turn.id"
CALL_ID: Final = "godoty.call.id"  # the ledger entry; of several, the last
CALL_IDS: Final = "godoty.call.ids"  # if there are several: retries, and a summary's
CALL_ATTEMPT: Final = "godoty.call.attempt"
CALL_STATE: Final = "godoty.call.state"
COST_USD: Final = "godoty.cost_usd"  # a decimal string, exact; unset: no cost is known
COST_SOURCE: Final = "godoty.cost_source"
MODEL_CALLS: Final = "godoty.model_calls"  # requests that the span covers
OPEN_CALLS: Final = "godoty.open_calls"  # those of them whose cost is not known

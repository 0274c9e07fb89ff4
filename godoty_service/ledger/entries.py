"""Ledger entries as values: model calls, and the adjustments that correct them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from godoty_service.ledger.states import CallState, Contribution, contribution
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.unit_prices import PriceEvidence

_MAX_NAME = 256  # characters; the longest listed one has 62
FIRST_AGENT = "assistant"  # the only one of the builds whose adjustments and session totals do not name the agent


class CostSource(StrEnum):
    """The source of a call's cost."""

    BILLED = "billed"
    RECONCILED = "reconciled"
    CATALOGUE = "catalogue"


class CallPurpose(StrEnum):
    """What a call was made for."""

    AGENT = "agent"
    SUMMARY = "summary"
    SUB_AGENT = "sub_agent"
    STRUCTURED_OUTPUT = "structured_output"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One request to the provider. Money is in US dollars; None is unknown, never zero.

    Attributes:
        call_id: Our id, the entry's primary key.
        tenant_id: The tenant that pays.
        session_uid: Our id of the session; `session_id` is the caller's, which may be reused after a deletion.
        number: 1, 2, 3 … in the session.
        requested_id: The listing's id of the requested model, if that is another name.
        served_model: The model that answered and is charged: the listing's id, or an unlisted model's provider name.
        served_slug: The served model's name as the provider sent it.
        generation_id: The provider's id, an attribute: it may come late, or never.
        upper_bound: The most that the call can cost, computed before it was made.
        budgeted: Whether it is sent only once its bound is reserved in its tenant's budget; None: no, or the entry is
            of an earlier build.
        tool_fees: The part of `cost` that is fees for tools and plugins that the provider ran; None: not reported.
        provider_key_id: The id of the key that made the call: its record can only be read with that key.
        api_key_id: The id of the API key that started the turn; None: the entry is of an earlier build.
        agent_version: The number of the agent's version; None: the entry is of an earlier build.
        agent_path: The sub-agent that made the call, as events name it; None: the turn's own agent did.
        purpose: None: the entry is of an earlier build, or its purpose of a later one.
        attempt: 1 for the first try of a request.
        error_code: The status of the provider's error response; None: it sent no error.
        error_message: The provider's error text, cleaned, at most 500 characters; None: there is none, or it concerns
            the service's account only.
        owner: The server that made the call.
        user: The name of the end user: filled in by readers, and stored by builds of schema 1 only.
        user_reference: The random reference of the end user, which remains when the name is erased.
        rule: The rule of `states.py` by which it counts in sums; entries of an earlier build have none, which is 1.
    """

    call_id: str
    tenant_id: str
    session_uid: str
    session_id: str
    turn_id: str
    number: int
    state: CallState
    requested_model: str
    fallback_models: tuple[str, ...] = ()
    requested_id: str | None = None
    served_model: str | None = None
    served_slug: str | None = None
    provider: str | None = None
    generation_id: str | None = None
    usage: TokenUsage | None = None
    cost: Decimal | None = None
    cost_source: CostSource | None = None
    catalogue_cost: Decimal | None = None
    upper_bound: Decimal | None = None
    budgeted: bool | None = None
    upstream_cost: Decimal | None = None
    tool_fees: Decimal | None = None
    is_byok: bool | None = None
    provider_key_id: str
    evidence: PriceEvidence | None = None
    start_time: datetime
    settle_time: datetime | None = None
    time_to_first_token: timedelta | None = None
    duration: timedelta | None = None
    attempt: int = 1
    finish_reason: str | None = None
    error: str | None = None
    error_code: int | None = None
    error_message: str | None = None
    user: str | None = None
    user_reference: str | None = None
    agent: str
    agent_version: int | None = None
    agent_path: str | None = None
    purpose: CallPurpose | None = None
    api_key_id: str | None = None
    owner: str
    rule: int = 1

    @property
    def entry_id(self) -> str:
        """The entry's primary key."""
        return self.call_id

    @property
    def model(self) -> str:
        """The one name under which the call is shown and summed: the served model, else the requested one."""
        return self.served_model or self.requested_id or self.requested_model

    @property
    def counts(self) -> Contribution:
        """The aspects in which it counts, by its state and rule."""
        return contribution(self.state, self.rule)

    @property
    def counted_cost(self) -> Decimal | None:
        """Its cost, if it is in a state in which that counts."""
        return self.cost if self.counts.cost else None


def is_above_bound(call: ModelCall) -> bool:
    """Return whether a call cost more than the upper bound that was computed before it was sent."""
    return call.cost is not None and call.upper_bound is not None and call.cost > call.upper_bound


def bounded_name(name: str | None) -> str | None:
    """Return a name from the provider, cut to a length that can be a label and a key; None for an empty one."""
    return name[:_MAX_NAME] if name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """A correction of a final call: a new entry, dated and attributed; the call's own entry never changes.

    Attributes:
        entry_id: Its own primary key.
        number: Its own number in the session.
        corrects: The id of the corrected call.
        cost: The amount added to the session's cost, in US dollars; may be negative.
        usage: The tokens added to the session's usage.
        resolves: Whether it resolves the call, which was unresolved.
        bound: The upper bound of the call that it resolves.
        model: The model that the call counts under.
        provider: The provider that served the call.
        agent: The agent that made the call; empty: the adjustment is of an earlier build.
        agent_version: The number of the agent's version; None: as for the call, or of an earlier build.
        purpose: What the call was made for.
        api_key_id: The API key that started the call's turn.
        user: The name of the call's end user, as in the call.
        user_reference: The reference of the call's end user.
        call_time: The start of the call: the adjustment belongs to the same period.
        time: The time of the adjustment.
        why: The reason, as text or "reconciled".
        by: The person or service that made it.
        request_id: The caller's id of the request that made it; None: it resolves a call.
        new_cost: The requested total cost of the call; None: the request stated `cost` itself.
    """

    entry_id: str
    tenant_id: str
    session_uid: str
    session_id: str
    turn_id: str
    number: int
    corrects: str
    cost: Decimal
    usage: TokenUsage | None = None
    resolves: bool = False
    bound: Decimal | None = None
    model: str
    provider: str | None = None
    agent: str = ""
    agent_version: int | None = None
    purpose: CallPurpose | None = None
    api_key_id: str | None = None
    user: str | None = None
    user_reference: str | None = None
    call_time: datetime | None = None
    time: datetime
    why: str
    by: str
    request_id: str | None = None
    new_cost: Decimal | None = None

    @property
    def start_time(self) -> datetime:
        """The time whose period it belongs to: its call's start."""
        return self.call_time or self.time


Entry = ModelCall | Adjustment

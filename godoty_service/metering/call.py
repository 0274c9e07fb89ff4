"""A ledger entry, as a value: one request to the provider."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from godoty_service.metering.prices import UnitPrices
from godoty_service.metering.usage import TokenUsage

_LONGEST_NAME = 256  # characters; the longest listed one has 62


class CallState(StrEnum):
    """What is known of a call's cost. A call leaves PENDING once and never comes back."""

    PENDING = "pending"
    SETTLED = "settled"
    UNRESOLVED = "unresolved"
    VOID = "void"


class CostSource(StrEnum):
    """Where the cost of a call comes from."""

    BILLED = "billed"
    RECONCILED = "reconciled"
    CATALOGUE = "catalogue"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceEvidence:
    """The prices that were in force when a call started, and where they stood.

    Attributes:
        prices: The provider's own where they are known, else the catalogue's.
        catalogue_hash: The catalogue of the time.
        catalogue_time: When it was first seen.
        provider_prices_hash: The list of the model's providers that holds the prices; None: the catalogue does.
        provider_prices_time: When that list was first seen.
    """

    prices: UnitPrices
    catalogue_hash: str
    catalogue_time: datetime
    provider_prices_hash: str | None = None
    provider_prices_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One request to the provider. Money is in US dollars; None is unknown, never zero.

    Attributes:
        call_id: Our id, the entry's primary key.
        tenant_id: Who pays.
        session_uid: Our id of the session; `session_id` is the caller's, who may use it again after a deletion.
        number: 1, 2, 3 … in the session.
        requested_id: The listing's id of the requested model, where that is another name.
        served_model: Who answered, and so who is charged: the listing's id; of an unlisted model, the provider's name.
        served_slug: The name of it that the provider sent.
        generation_id: The provider's id, an attribute: it may come late, or never.
        upper_bound: What the call can cost at the most, told before it was made.
        provider_key_id: Names the key that made the call: its record can only be read with that one.
        attempt: 1 for the first try of a request.
        error_code: The status of the error that the provider answered with; None: it answered none.
        error_message: What the provider said of the error, cleaned, at most 500 characters; None: nothing, or only what
            concerns the service's account.
        owner: The server that made the call.
        rule: The rule of `states.py` by which it counts in sums; what an earlier build wrote has none, which is 1.
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
    upstream_cost: Decimal | None = None
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
    agent: str
    owner: str
    rule: int = 1

    @property
    def model(self) -> str:
        """The one name under which the call is shown and summed: who served it, or else who was asked."""
        return self.served_model or self.requested_id or self.requested_model


def is_above_bound(call: ModelCall) -> bool:
    """Return whether a call cost more than it could by the bound that was computed before it was sent."""
    return call.cost is not None and call.upper_bound is not None and call.cost > call.upper_bound


def bounded_name(name: str | None) -> str | None:
    """Return a name that the provider sent, cut to a length that can be a label and a key; empty is none."""
    return name[:_LONGEST_NAME] if name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """What changed after an entry was final: a new entry, dated and attributed, that never touches the old one.

    Attributes:
        entry_id: Its own primary key.
        number: Its own number in the session.
        corrects: The call that it is about.
        cost: What it adds to the session's cost; may be negative.
        usage: What it adds to the session's tokens.
        resolves: The call was unresolved and no longer is.
        bound: The bound of the call that it resolves.
        model: The model that the call is booked under.
        provider: Who served the call.
        agent: Whose call it was.
        user: The end user of the call.
        call_time: When the call started: the adjustment belongs to the same period.
        time: When the adjustment was made.
        why: The reason, in a person's words or "reconciled".
        by: Who did it.
        request_id: The caller's id of the request that made it; None: it resolves a call.
        new_cost: The call's total cost that was asked for; None: `cost` itself was.
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
    user: str | None = None
    call_time: datetime | None = None
    time: datetime
    why: str
    by: str
    request_id: str | None = None
    new_cost: Decimal | None = None

    @property
    def start_time(self) -> datetime:
        """The time that it belongs to: its call's start."""
        return self.call_time or self.time


Entry = ModelCall | Adjustment

"""Metrics for Prometheus. No label has a tenant, session or user; each label has a bounded number of values.

Prometheus counts in floats; exact amounts are in the ledger.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector

OTHER: Final = "other"
UNKNOWN: Final = "unknown"
MAX_MODELS = 200
MAX_ENDPOINTS = 200  # pairs of model and provider
MAX_PROVIDERS = 100

_CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_FIRST_TOKEN_SECONDS = (0.1, 0.2, 0.4, 0.7, 1, 1.5, 2, 3, 5, 10, 30)
_PROVIDER_FAILURES = frozenset({"timeout", "connection", "stream", UNKNOWN})

T = TypeVar("T", bound=Hashable)


class CardinalityLimit(Generic[T]):
    """Bounds the number of a label's values: each distinct one is a time series that Prometheus stores.

    Args:
        limit: How many distinct values are admitted.
        rest: Replaces all others.
    """

    def __init__(self, *, limit: int, rest: T) -> None:
        self._limit = limit
        self._rest = rest
        self._admitted: set[T] = set()

    def admit(self, value: T) -> T:
        """Return the value if it is among the first `limit` distinct ones, otherwise `rest`."""
        if value in self._admitted:
            return value
        if len(self._admitted) >= self._limit:
            return self._rest
        self._admitted.add(value)
        return value


def provider_code(code: int | str | None) -> str:
    """Return the label of a failure: an HTTP status, "timeout", "connection" or "stream"; "unknown" for None.

    Any other code is "other".
    """
    text = UNKNOWN if code is None else str(code)
    is_status = text.isdecimal() and 100 <= int(text) <= 599  # noqa: PLR2004 - the range of HTTP statuses
    return text if is_status or text in _PROVIDER_FAILURES else OTHER


class Metrics:
    """All metrics of a server, in a registry of their own.

    Args:
        methods: The full names of the gRPC methods; calls of any other are counted as "unknown".
        shared: The directory in which processes share their counts (see `shared_counts`); None: not shared.
    """

    def __init__(self, *, methods: Iterable[str], shared: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self._shared = shared
        self._methods = frozenset(methods)
        self._models = CardinalityLimit(limit=MAX_MODELS, rest=OTHER)
        self._endpoints = CardinalityLimit(limit=MAX_ENDPOINTS, rest=(OTHER, OTHER))
        self._providers = CardinalityLimit(limit=MAX_PROVIDERS, rest=OTHER)
        ProcessCollector(registry=self.registry)
        self._define_calls()
        self._define_model_calls()
        self._define_durations()
        self._define_ledger()
        self._define_budgets_and_prices()
        self._define_clock()
        self._define_webhooks()

    def _define_calls(self) -> None:
        self._requests = Counter("godoty_requests", "Finished calls.", ["method", "code"], registry=self.registry)
        self._request_seconds = Histogram(
            "godoty_request_duration_seconds",
            "Duration of a call; of a stream, its whole duration.",
            ["method", "code"],
            buckets=_CALL_SECONDS,
            registry=self.registry,
        )
        self._refused_keys = Counter("godoty_refused_keys", "Calls without a valid API key.", registry=self.registry)
        self._running = Gauge(
            "godoty_running_turns", "Running turns.", registry=self.registry, multiprocess_mode="livesum"
        )

    def _define_model_calls(self) -> None:
        self._first_token = Histogram(
            "godoty_time_to_first_token_seconds",
            "From sending a model call to its first token.",
            ["model", "provider"],
            buckets=_FIRST_TOKEN_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "godoty_tokens",
            "Tokens of settled model calls, as counted by the provider. input includes cache_read and"
            " cache_write, output includes reasoning: do not sum the kinds.",
            ["model", "kind"],
            registry=self.registry,
        )
        self._provider_errors = Counter(
            "godoty_provider_errors",
            "Model calls that failed at the provider, by HTTP status, or connection, timeout, stream.",
            ["code"],
            registry=self.registry,
        )
        self._refusals = Counter(
            "godoty_provider_account_refusals",
            "Calls refused because of this service's provider account, by HTTP status (401, 402, 403).",
            ["code"],
            registry=self.registry,
        )
        self._refused = Gauge(
            "godoty_provider_account_refused",
            "1 while the provider refuses this service's account: alert on it.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

    def _define_durations(self) -> None:
        self._model_call_seconds = Histogram(
            "godoty_model_call_duration_seconds",
            "From sending a model call to its end, including failed and cancelled calls. Beyond 100 providers: other.",
            ["provider"],
            buckets=_CALL_SECONDS,
            registry=self.registry,
        )
        self._agent_cycle_seconds = Histogram(
            "godoty_agent_cycle_duration_seconds",
            "A cycle of the agent's loop: a model call with its retries, and the tools that it called.",
            ["provider"],
            buckets=_CALL_SECONDS,
            registry=self.registry,
        )

        self._tool_calls = Counter(
            "godoty_tool_calls",
            "Tool calls that ended, by whose tool it is (built_in, mcp, agent; unknown: there is none of the name) and"
            " outcome (ok, error, timeout, refused). Those that ended with a cancelled turn are not counted.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self._tool_call_seconds = Histogram(
            "godoty_tool_call_duration_seconds",
            "Duration of a tool call that ended.",
            ["kind"],
            buckets=_CALL_SECONDS,
            registry=self.registry,
        )

    def _define_ledger(self) -> None:
        self._cost = Counter(
            "godoty_cost_usd",
            "Cost of settled model calls, as a float; exact costs are in the ledger.",
            ["model", "source"],
            registry=self.registry,
        )
        self._above_bound = Counter(
            "godoty_cost_above_bound",
            "Settled calls that cost more than their upper bound. Budgets rely on that bound.",
            ["model"],
            registry=self.registry,
        )
        self._drift = Counter(
            "godoty_price_drift_usd",
            "Sum of |billed - catalogue cost| of settled calls, as a float; direction: billed over or under the"
            " catalogue. Divided by godoty_cost_usd_total it is the relative drift.",
            ["model", "direction"],
            registry=self.registry,
        )
        self._open = Gauge(
            "godoty_ledger_open_entries",
            "Pending entries: calls whose cost is not known yet.",
            registry=self.registry,
            multiprocess_mode="mostrecent",  # each process counts the whole ledger
        )
        self._unresolved = Gauge(
            "godoty_ledger_unresolved_entries",
            "Unresolved entries: calls whose cost an operator must resolve.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

    def _define_budgets_and_prices(self) -> None:
        self._budget_alerts = Counter(
            "godoty_budget_alerts",
            "Shares of tenants' budgets that were reached, in per cent; of several at once, the highest.",
            ["window", "percent"],
            registry=self.registry,
        )
        self._rejected_lists = Counter(
            "godoty_price_lists_rejected",
            "Price lists that were fetched and rejected: they price nothing, or far less than the last one.",
            ["list"],
            registry=self.registry,
        )
        self._catalogue_age = Gauge(
            "godoty_catalogue_age_seconds",
            "Age of the price catalogue in use; of several processes, the highest.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )

    def _define_clock(self) -> None:
        self._clock_offset = Gauge(
            "godoty_clock_offset_seconds",
            "Seconds by which the system clock is ahead of the database's time.",
            registry=self.registry,
            multiprocess_mode="mostrecent",  # workers share the machine's clock
        )
        self._clock_out_of_tolerance = Counter(
            "godoty_clock_out_of_tolerance",
            "Measurements of a system clock beyond GODOTY_CLOCK_TOLERANCE; health is NOT_SERVING then.",
            registry=self.registry,
        )

    def _define_webhooks(self) -> None:
        self._webhook_attempts = Counter(
            "godoty_webhook_attempts",
            "Attempts to deliver an event to a webhook, by outcome: delivered, retry, or failed for good.",
            ["outcome"],
            registry=self.registry,
        )
        self._webhook_oldest = Gauge(
            "godoty_webhook_oldest_pending_seconds",
            "Age of the oldest event that an enabled webhook has not taken; 0: there is none.",
            registry=self.registry,
            multiprocess_mode="mostrecent",  # each process measures all of them
        )

    @property
    def page(self) -> CollectorRegistry:
        """The registry to scrape: of several processes, the sum. Only a single process has `process_` metrics."""
        if self._shared is None:
            return self.registry
        page = CollectorRegistry()
        MultiProcessCollector(page, str(self._shared))  # type: ignore[no-untyped-call] # has no types
        return page

    def request_finished(self, method: str, code: str, seconds: float) -> None:
        """Count a call: its full method, the name of its status ("OK"), its duration."""
        labels = (method if method in self._methods else UNKNOWN, code)
        self._requests.labels(*labels).inc()
        self._request_seconds.labels(*labels).observe(seconds)

    def key_refused(self) -> None:
        """Count a call without a valid key."""
        self._refused_keys.inc()

    @contextmanager
    def running_turn(self) -> Iterator[None]:
        """Count a turn as running while the block runs."""
        with self._running.track_inprogress():
            yield

    def first_token(self, model: str, provider: str | None, seconds: float) -> None:
        """Record the time to a call's first token."""
        self._first_token.labels(*self._endpoints.admit((model, provider or UNKNOWN))).observe(seconds)

    def model_call(self, provider: str | None, seconds: float) -> None:
        """Record the duration of a model call, by its provider."""
        self._model_call_seconds.labels(self._providers.admit(provider or UNKNOWN)).observe(seconds)

    def agent_cycle(self, provider: str | None, seconds: float) -> None:
        """Record the duration of a cycle of the agent's loop, by the provider of its last model call."""
        self._agent_cycle_seconds.labels(self._providers.admit(provider or UNKNOWN)).observe(seconds)

    def tool_call(self, kind: str, outcome: str, seconds: float) -> None:
        """Record a tool call, by its kind ("built_in", "mcp") and its outcome ("ok", "timeout")."""
        self._tool_calls.labels(kind, outcome).inc()
        self._tool_call_seconds.labels(kind).observe(seconds)

    def tokens(
        self,
        model: str,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        reasoning_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
    ) -> None:
        """Count a settled call's tokens."""
        label = self._models.admit(model)
        for kind, count in (
            ("input", input_tokens),
            ("output", output_tokens),
            ("reasoning", reasoning_tokens),
            ("cache_read", cache_read_tokens),
            ("cache_write", cache_write_tokens),
        ):
            if count > 0:
                self._tokens.labels(label, kind).inc(count)

    def cost(self, model: str, source: str, cost_usd: Decimal) -> None:
        """Add a settled call's cost; `source` is the name of its cost source, as in "BILLED"."""
        if cost_usd >= 0:  # a counter only grows; credits are in the ledger alone
            self._cost.labels(self._models.admit(model), source).inc(float(cost_usd))

    def cost_above_bound(self, model: str) -> None:
        """Count a settled call that cost more than its upper bound."""
        self._above_bound.labels(self._models.admit(model)).inc()

    def drift(self, model: str, *, billed_usd: Decimal, catalogue_usd: Decimal) -> None:
        """Add the difference between a billed cost and the catalogue's."""
        direction = "over" if billed_usd >= catalogue_usd else "under"
        self._drift.labels(self._models.admit(model), direction).inc(float(abs(billed_usd - catalogue_usd)))

    def open_entries(self, count: int) -> None:
        """Set the number of pending entries."""
        self._open.set(count)

    def unresolved_entries(self, count: int) -> None:
        """Set the number of unresolved entries."""
        self._unresolved.set(count)

    def clock_offset(self, seconds: float, *, within_tolerance: bool) -> None:
        """Set how far the system clock is ahead of the database's time; count a measurement beyond the tolerance."""
        self._clock_offset.set(seconds)
        if not within_tolerance:
            self._clock_out_of_tolerance.inc()

    def budget_alert(self, window: str, percent: int) -> None:
        """Count a share of a budget that was reached: "day", "month" or "total"; 50, 80 or 100."""
        self._budget_alerts.labels(window, str(percent)).inc()

    def watch_catalogue_age(self, age: Callable[[], float]) -> None:
        """Call `age` for the catalogue's age in seconds at every scrape, in another thread."""
        self._catalogue_age.set_function(age)

    def price_list_rejected(self, which: str) -> None:
        """Count a price list that was fetched and rejected: of "models", or of a model's "providers"."""
        self._rejected_lists.labels(which).inc()

    def catalogue_age(self, seconds: float) -> None:
        """Set the catalogue's age, for several processes: the one that is scraped cannot call the others."""
        self._catalogue_age.set(seconds)

    def webhook_attempt(self, outcome: str) -> None:
        """Count an attempt to deliver an event: "delivered", "retry" or "failed"."""
        self._webhook_attempts.labels(outcome).inc()

    def webhook_oldest_pending(self, seconds: float) -> None:
        """Set the age of the oldest event that is not delivered."""
        self._webhook_oldest.set(seconds)

    def provider_error(self, code: int | str | None) -> None:
        """Count a failed model call by its HTTP status, or "connection", "timeout" or "stream"."""
        self._provider_errors.labels(provider_code(code)).inc()

    def account_refused(self, code: int) -> None:
        """Raise the alert: the provider refuses this service's account."""
        self._refusals.labels(provider_code(code)).inc()
        self._refused.set(1)

    def account_accepted(self) -> None:
        """Clear the alert: the provider served a call of this service's account."""
        self._refused.set(0)

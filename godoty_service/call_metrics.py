"""Records metrics of model calls from their ledger entries, and of tools, budgets, the clock and the ledger."""

from contextlib import AbstractContextManager
from datetime import timedelta

import structlog

from godoty_service.agents.tools.outcomes import ToolKind, ToolOutcome
from godoty_service.budgets.alerts import BudgetAlert
from godoty_service.errors import ProviderAccountRefused, ProviderError
from godoty_service.ledger.entries import ModelCall, is_above_bound
from godoty_service.pricing.money import format_usd
from godoty_service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class CallMetrics:
    """Records metrics from ledger entries."""

    def __init__(self, metrics: Metrics, *, service_key_id: str) -> None:
        """Create a recorder.

        Args:
            metrics: The metrics.
            service_key_id: The id of the service's own provider key: refusals of tenants' own keys raise no alert.
        """
        self._metrics = metrics
        self._service_key_id = service_key_id

    def running_turn(self) -> AbstractContextManager[None]:
        """Count a turn as running."""
        return self._metrics.running_turn()

    def call_closed(self, call: ModelCall) -> None:
        """Count a call that is settled."""
        if not call.counts.cost:
            return
        if call.time_to_first_token is not None:
            self._metrics.first_token(call.model, call.provider, call.time_to_first_token.total_seconds())
        if (usage := call.usage) is not None:
            self._metrics.tokens(
                call.model,
                input_tokens=usage.input_tokens or 0,
                output_tokens=usage.output_tokens or 0,
                reasoning_tokens=usage.reasoning_tokens or 0,
                cache_read_tokens=usage.cache_read_tokens or 0,
                cache_write_tokens=usage.cache_write_tokens or 0,
            )
        if call.cost is not None and call.cost_source is not None:
            self._metrics.cost(call.model, call.cost_source.name, call.cost)
            if is_above_bound(call):
                self._above_bound(call)
            if call.catalogue_cost is not None:
                self._metrics.drift(call.model, billed_usd=call.cost, catalogue_usd=call.catalogue_cost)
        if call.error is None and call.provider_key_id == self._service_key_id:
            self._metrics.account_accepted()

    def call_ended(self, call: ModelCall) -> None:
        """Record the duration of a call."""
        if call.duration is not None:
            self._metrics.model_call(call.provider, call.duration.total_seconds())

    def cycle_ended(self, provider: str | None, duration: timedelta) -> None:
        """Record the duration of a cycle of the agent's loop."""
        self._metrics.agent_cycle(provider, duration.total_seconds())

    def tool_called(self, kind: ToolKind, outcome: ToolOutcome, duration: timedelta) -> None:
        """Record a tool call that has ended."""
        self._metrics.tool_call(kind.value, outcome.value, duration.total_seconds())

    def _above_bound(self, call: ModelCall) -> None:
        """Report that the bound that budgets rely on was too low for a call."""
        self._metrics.cost_above_bound(call.model)
        log.error(
            "cost_above_bound",
            call_id=call.call_id,
            tenant_id=call.tenant_id,
            model=call.model,
            provider=call.provider,
            cost_usd=format_usd(call.cost),
            upper_bound_usd=format_usd(call.upper_bound),
        )

    def budget_reached(self, alert: BudgetAlert) -> None:
        """Count a share of a tenant's budget that was reached."""
        self._metrics.budget_alert(alert.window.value, alert.percent)

    def clock_measured(self, offset: timedelta, *, within_tolerance: bool) -> None:
        """Set the offset of the system clock; count it if it is beyond the tolerance."""
        self._metrics.clock_offset(offset.total_seconds(), within_tolerance=within_tolerance)

    def ledger_counted(self, *, pending: int, unresolved: int) -> None:
        """Set the numbers of pending and of unresolved calls."""
        self._metrics.open_entries(pending)
        self._metrics.unresolved_entries(unresolved)

    def provider_failed(self, error: ProviderError, *, provider_key_id: str) -> None:
        """Count a call that failed at the provider."""
        code = error.metadata.get("provider_code")
        self._metrics.provider_error(code)
        own = provider_key_id == self._service_key_id
        if own and isinstance(error, ProviderAccountRefused) and code is not None:
            self._metrics.account_refused(int(code))

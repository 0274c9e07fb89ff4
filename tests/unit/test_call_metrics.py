"""The alert for a call that cost more than its upper bound."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from structlog.testing import capture_logs

from godoty_service.call_metrics import CallMetrics
from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.telemetry.metrics import Metrics

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def _settled(*, cost: str, bound: str | None) -> ModelCall:
    return ModelCall(
        call_id="call_1",
        tenant_id="tnt_1",
        session_uid="ses_1",
        session_id="talk",
        turn_id="turn_1",
        number=1,
        state=CallState.SETTLED,
        requested_model="x/y",
        cost=Decimal(cost),
        cost_source=CostSource.BILLED,
        upper_bound=None if bound is None else Decimal(bound),
        provider_key_id="key",
        start_time=NOW,
        agent="assistant",
        owner="server",
    )


@pytest.mark.parametrize(("cost", "bound", "alarms"), [("2", "1", 1), ("1", "1", 0), ("0.5", "1", 0), ("2", None, 0)])
def test_cost_above_its_bound_is_logged_and_counted(cost: str, bound: str | None, alarms: int) -> None:
    """A settled cost above the bound raises an error line and a counter; a cost without a bound does not."""
    metrics = Metrics(methods=[])
    with capture_logs() as lines:
        CallMetrics(metrics, service_key_id="key").call_closed(_settled(cost=cost, bound=bound))

    assert [line["event"] for line in lines].count("cost_above_bound") == alarms
    counted = metrics.registry.get_sample_value("godoty_cost_above_bound_total", {"model": "x/y"})
    assert (counted or 0) == alarms

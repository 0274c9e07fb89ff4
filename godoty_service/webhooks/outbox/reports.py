"""Makes events of what happened: of ended turns, unresolved calls, reached budgets and webhooks that are off. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from godoty_service.budgets.thresholds import ReachedThreshold
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.totals import Totals
from godoty_service.pricing import money
from godoty_service.turns.event_log.outbox import EndedTurn
from godoty_service.webhooks.event import EventType, WebhookEvent, event_id_of, timestamp
from godoty_service.webhooks.webhook import Webhook

_ACTION_REQUIRED = "action_required"  # the stop reason of a turn that waits for actions


def turn_events(turn: EndedTurn, totals: Totals) -> Iterator[WebhookEvent]:
    """Yield the events of an ended turn: its end, and that it waits for actions.

    Args:
        turn: The turn.
        totals: Its totals.
    """
    yield _turn_event(turn, totals, EventType.TURN_FINISHED)
    if turn.stop_reason == _ACTION_REQUIRED:
        yield _turn_event(turn, totals, EventType.TURN_ACTION_REQUIRED, action_ids=[*turn.action_ids])


def _turn_event(turn: EndedTurn, totals: Totals, event_type: EventType, **more: Any) -> WebhookEvent:
    data = {
        "turn_id": turn.turn_id,
        "session_id": turn.session_id,
        "agent": turn.agent or None,
        "agent_version": turn.agent_version,
        "end_time": timestamp(turn.time),
        "stop_reason": turn.stop_reason.upper() if turn.stop_reason is not None else None,
        "error_reason": turn.error_reason,
        "turn_totals": _totals(totals),
        "session_totals": _totals(turn.session_totals) if turn.session_totals is not None else None,
        **more,
    }
    return WebhookEvent(
        event_id=event_id_of(turn.tenant_id, event_type, turn.turn_id),
        event_type=event_type,
        tenant_id=turn.tenant_id,
        time=turn.time,
        data=data,
        turn_id=turn.turn_id,
        session_id=turn.session_id,
        user_reference=turn.user_reference,
    )


def unresolved_event(call: ModelCall) -> WebhookEvent:
    """Return the event of an unresolved call."""
    time = call.settle_time or call.start_time
    data = {
        "call_id": call.call_id,
        "turn_id": call.turn_id,
        "session_id": call.session_id,
        "number": call.number,
        "model": call.model,
        "provider": call.provider,
        "generation_id": call.generation_id,
        "start_time": timestamp(call.start_time),
        "unresolved_time": timestamp(time),
        "upper_bound_usd": money.format_usd(call.upper_bound),
    }
    return WebhookEvent(
        event_id=event_id_of(call.tenant_id, EventType.CALL_UNRESOLVED, call.call_id),
        event_type=EventType.CALL_UNRESOLVED,
        tenant_id=call.tenant_id,
        time=time,
        data=data,
        turn_id=call.turn_id,
        session_id=call.session_id,
        user_reference=call.user_reference,
    )


def threshold_event(tenant_id: str, reached: ReachedThreshold, *, time: datetime) -> WebhookEvent:
    """Return the event of a share of a budget that was reached.

    Args:
        tenant_id: The tenant.
        reached: The share.
        time: When it was found.
    """
    limit = money.format_usd(reached.limit) or ""
    source = (reached.window.value, reached.key, limit, str(reached.percent))
    data = {
        "window": reached.window.value.upper(),
        "window_key": reached.key,
        "percent": reached.percent,
        "spent_usd": money.format_usd(reached.spent),
        "limit_usd": limit,
        "hard": reached.hard,
    }
    return WebhookEvent(
        event_id=event_id_of(tenant_id, EventType.BUDGET_THRESHOLD, *source),
        event_type=EventType.BUDGET_THRESHOLD,
        tenant_id=tenant_id,
        time=time,
        data=data,
    )


def disabled_event(webhook: Webhook) -> WebhookEvent:
    """Return the event of a webhook that the server has switched off."""
    time = webhook.disable_time or webhook.update_time
    data = {"webhook": webhook.name, "disable_time": timestamp(time), "reason": webhook.disabled_reason}
    return WebhookEvent(
        event_id=event_id_of(webhook.tenant_id, EventType.WEBHOOK_DISABLED, webhook.uid, timestamp(time)),
        event_type=EventType.WEBHOOK_DISABLED,
        tenant_id=webhook.tenant_id,
        time=time,
        data=data,
        webhook=webhook.name,
    )


def _totals(totals: Totals) -> dict[str, Any]:
    """Return totals as a body has them: amounts as exact decimals, as `Totals` of metering.proto."""
    return {
        "cost_usd": money.format_usd(totals.cost),
        "input_tokens": totals.usage.input_tokens,
        "output_tokens": totals.usage.output_tokens,
        "total_tokens": totals.usage.total_tokens,
        "model_calls": totals.model_calls,
        "turns": totals.turns,
        "pending_calls": totals.pending_calls,
        "unresolved_calls": totals.unresolved_calls,
        "unresolved_bound_usd": None if totals.unbounded_calls else money.format_usd(totals.unresolved_bound),
    }

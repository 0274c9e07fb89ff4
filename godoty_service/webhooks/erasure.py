"""Erases what webhooks have of a tenant, or of an end user."""

from godoty_service.ledger.unresolved_outbox import UnresolvedOutbox
from godoty_service.turns.event_log.outbox import TurnOutbox
from godoty_service.webhooks.deliveries import Deliveries
from godoty_service.webhooks.outbox.budget_marks import BudgetMarks
from godoty_service.webhooks.store import Webhooks


class WebhookErasure:
    """Erases it."""

    def __init__(
        self,
        *,
        webhooks: Webhooks,
        deliveries: Deliveries,
        marks: BudgetMarks,
        turns: TurnOutbox,
        calls: UnresolvedOutbox,
    ) -> None:
        """Create it.

        Args:
            webhooks: The webhooks.
            deliveries: Their deliveries.
            marks: The shares of budgets that were reported.
            turns: The ends of turns that are not published yet.
            calls: The unresolved calls that are not published yet.
        """
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._marks = marks
        self._turns = turns
        self._calls = calls

    async def user(self, tenant_id: str, user_reference: str) -> None:
        """Delete the deliveries that concern an end user, and what would become deliveries."""
        await self._turns.forget_user(tenant_id, user_reference)
        await self._calls.forget_user(tenant_id, user_reference)
        await self._deliveries.forget_user(tenant_id, user_reference)

    async def tenant(self, tenant_id: str) -> bool:
        """Delete the webhooks of a tenant, with their secrets and deliveries.

        Returns:
            Whether there was nothing: a server may have stored deliveries while the webhooks were deleted.
        """
        had_webhooks = await self._webhooks.erase(tenant_id)
        had_deliveries = await self._deliveries.erase(tenant_id)
        await self._marks.erase(tenant_id)
        return not (had_webhooks or had_deliveries)

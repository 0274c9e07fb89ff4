"""Lists actions and stores answers to them; sessions whose actions are all decided go on by themselves."""

from datetime import datetime
from typing import Protocol

import structlog

from godoty_service.actions.action import ActionState, Answer, Decider, Step, StepCall
from godoty_service.actions.errors import ActionClosed
from godoty_service.actions.stores import ActionStores
from godoty_service.aio.periodic import run_every
from godoty_service.attachments.store import AttachmentStore
from godoty_service.clock import Clock
from godoty_service.errors import GodotyError, ShuttingDown
from godoty_service.sessions.store import SessionStore
from godoty_service.tenancy.api_keys import ApiKeys, KeyState
from godoty_service.tenancy.auth import KeyLimits
from godoty_service.turns.actions.waiting import check_fits, close, name_image
from godoty_service.turns.turn import TurnRequest

log = structlog.get_logger(__name__)

_MAX_ATTEMPTS = 40  # to go on by itself: some days


class StartTurn(Protocol):
    """Starts a turn that no reader waits for."""

    def __call__(self, tenant_id: str, request: TurnRequest, *, key_id: str, key_limits: KeyLimits) -> str:
        """Start a turn; return its id."""


class ActionService:
    """The actions of all tenants."""

    def __init__(
        self,
        stores: ActionStores,
        *,
        sessions: SessionStore,
        keys: ApiKeys,
        attachments: AttachmentStore,
        start: StartTurn,
        clock: Clock,
    ) -> None:
        """Create the service.

        Args:
            stores: Where actions are stored.
            sessions: The sessions.
            keys: The API keys.
            attachments: The tenants' attachments.
            start: Starts a turn.
            clock: Returns the time.
        """
        self._stores = stores
        self._sessions = sessions
        self._keys = keys
        self._attachments = attachments
        self._start = start
        self._clock = clock

    async def page(
        self,
        tenant_id: str,
        *,
        session_id: str | None,
        state: ActionState | None,
        before: str | None,
        limit: int,
        most_bytes: int,
    ) -> list[StepCall]:
        """Return the newest actions of a tenant, or of one of its sessions, as `StepCalls.page` does.

        Raises:
            SessionNotFound: The tenant has no such session.
        """
        uid = None
        if session_id is not None:
            session, _ = await self._sessions.get_summary(tenant_id, session_id)
            uid = session.uid
        return await self._stores.calls.page(
            tenant_id, session_uid=uid, state=state, before=before, limit=limit, most_bytes=most_bytes
        )

    async def decide(self, tenant_id: str, answer: Answer, decider: Decider) -> StepCall:
        """Store the answer to an action; go on with the session if it has no open action left.

        Raises:
            ActionNotFound: The tenant has no such action.
            ActionClosed: The session has gone on, or the API key that asked was revoked.
            ActionDecided: The action has another answer.
            ActionExpired: No answer came in time.
            ReviewerOnly: The key lacks the scope approve, which the action needs.
            AttachmentNotFound: The tenant has no such attachment.
            InvalidRequest: The answer does not fit the action.
        """
        action = await self._stores.calls.get(tenant_id, answer.action_id)
        check_fits(action, answer, "action_result")
        step = await self._stores.steps.get(tenant_id, action.step_id)
        if step is None or (action.is_open and (step.closed or await self._key_ended(step))):
            if step is not None and not step.closed:
                await close(self._stores, step, turn_id="")
            raise ActionClosed.of(action.call_id, turn_id=action.next_turn_id)
        await name_image(self._attachments, action, answer, "action_result")
        if not step.closed:
            await self._stores.steps.look_soon(step.step_id, tenant_id)
        action = await self._stores.calls.decide(action, answer, decider)
        if not step.closed:
            await self._go_on(step)
        return action

    async def run(self, interval: float) -> None:
        """Go on with sessions whose actions are decided, every `interval` seconds until cancelled."""
        await run_every(interval, self.look, failure="actions_not_read")

    async def look(self) -> None:
        """Let actions expire whose time has come, and go on with sessions whose actions are all decided."""
        for step, check_time in await self._stores.steps.due():
            if await self._stores.steps.claim(step, check_time):
                await self._look_at(step)

    async def _look_at(self, step: Step) -> None:
        now: datetime = self._clock()
        try:
            expired = step.expire_time <= now and await self._expire(step)
            if expired or step.attempts >= _MAX_ATTEMPTS or await self._key_ended(step):
                await close(self._stores, step, turn_id="")
            elif not await self._go_on(step):
                await self._stores.steps.wait_for_answers(step)
        except GodotyError as error:
            log.warning("session_not_gone_on", session_id=step.session_id, error=str(error))

    async def _expire(self, step: Step) -> bool:
        """Let the open actions of a step expire; return whether one of them closes it."""
        await self._stores.calls.expire(step.tenant_id, step.step_id)
        calls = await self._stores.calls.of_step(step.tenant_id, step.step_id)
        return any(each.state is ActionState.EXPIRED and each.closes_on_expiry for each in calls)

    async def _go_on(self, step: Step) -> bool:
        """Start the turn that goes on, unless an action is open; return whether none is."""
        calls = await self._stores.calls.of_step(step.tenant_id, step.step_id)
        if any(each.is_open for each in calls):
            return False
        if step.key_id is None:
            return True
        key = await self._keys.require(step.tenant_id, step.key_id)
        request = TurnRequest(session_id=step.session_id, text="", step_id=step.step_id, go_on=True)
        try:
            turn_id = self._start(step.tenant_id, request, key_id=key.key_id, key_limits=key.limits)
        except ShuttingDown:
            return True  # another server looks at the step soon
        log.info("session_goes_on", session_id=step.session_id, turn_id=turn_id)
        return True

    async def _key_ended(self, step: Step) -> bool:
        if step.key_id is None:
            return False
        return (await self._keys.states([step.key_id]))[step.key_id] in (KeyState.ENDED, KeyState.TENANT_DELETED)

"""Erases end users: their conversations are deleted and their names forgotten, while ledger entries keep references.

An order is written first (`users/erasures.py`); from then on the name is free. A task carries it out, whether or not
the caller waits. It deletes session after session, and cancels the turns that hold one, so that they are charged first.
If its server dies, another one takes the order over.
"""

import asyncio
import time

import structlog

from godoty_service.aio.backoff import Backoff
from godoty_service.aio.periodic import run_every
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import GodotyError, RequestIdReused, SessionBusy, SessionLost, ShuttingDown
from godoty_service.ids import new_id
from godoty_service.sessions.lists import SessionLists, UserSession
from godoty_service.tenancy.admin import Administration
from godoty_service.tenancy.audit import Actor
from godoty_service.tenancy.errors import ErasureUnfinished, UserNotFound
from godoty_service.turns.session_deletion import SessionDeletions
from godoty_service.turns.turn_store import TurnStore
from godoty_service.users.erasures import ErasedContents, ErasureOrder, ErasureOrders
from godoty_service.users.references import FRESH, UserReferences
from godoty_service.users.stored_names import StoredNames
from godoty_service.webhooks.erasure import WebhookErasure

log = structlog.get_logger(__name__)

PATIENCE = 30.0  # seconds that a caller waits for the end of an erasure
# Seconds after which no server acquires a session with the erased reference any more.
_SETTLED = FRESH + 0.5
# Seconds between two looks for sessions, and for the end of an erasure of another server; longer while nothing changes.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_BACKOFF = 1.0  # seconds after a failure of the database
_AT_ONCE = 20  # sessions of one look
_RETRY_AFTER = 2.0  # seconds


class UserErasure:
    """Erases users."""

    def __init__(
        self,
        *,
        orders: ErasureOrders,
        users: UserReferences,
        stored_names: StoredNames,
        sessions: SessionLists,
        deletions: SessionDeletions,
        turn_store: TurnStore,
        replicas: ReplicaHeartbeats,
        administration: Administration,
        webhooks: WebhookErasure,
    ) -> None:
        """Create the service.

        Args:
            orders: The orders.
            users: The references.
            stored_names: Replaces names that builds of schema 1 stored.
            sessions: Finds the sessions of a user.
            deletions: Deletes them.
            turn_store: Cancels turns, whichever server runs them.
            replicas: This server, and which others are alive.
            administration: Records erasures in the audit log first.
            webhooks: Deletes what webhooks are to be notified of.
        """
        self._orders = orders
        self._users = users
        self._stored_names = stored_names
        self._sessions = sessions
        self._deletions = deletions
        self._turn_store = turn_store
        self._replicas = replicas
        self._administration = administration
        self._webhooks = webhooks
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self, interval: float) -> None:
        """Carry out the orders of servers that have died, every `interval` seconds until cancelled."""
        await run_every(interval, self.resume, failure="erasures_not_resumed")

    async def resume(self) -> None:
        """Take over the unfinished orders that no living server carries out."""
        owners = await self._orders.owners()
        dead = owners - await self._replicas.alive(owners) | {self._replicas.replica_id}
        while found := await self._orders.unfinished(owners=dead, excluding=self._running):
            for order in found:
                await self._take_over(order)
            if not any(each.reference in self._running for each in found):
                return  # others took them over

    async def stop(self) -> None:
        """Stop the erasures of this server: others take them over."""
        tasks = list(self._running.values())
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def erase(self, actor: Actor, tenant_id: str, name: str, *, request_id: str | None = None) -> ErasureOrder:
        """Erase a user, or go on with an erasure that is not done; return it once it is done.

        Args:
            actor: The author.
            tenant_id: The tenant.
            name: The user's name.
            request_id: The caller's id of the request; the same id erases once.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted: all its users are erased.
            UserNotFound: No turn of the tenant has named this user since the last erasure.
            RequestIdReused: The request id is that of an unfinished erasure of another user.
            ErasureUnfinished: It takes longer than the caller waits, and goes on.
        """
        await self._administration.tenants.require_changeable(tenant_id)
        return await self._done(await self._order(actor, tenant_id, name, request_id))

    async def _order(self, actor: Actor, tenant_id: str, name: str, request_id: str | None) -> ErasureOrder:
        """Return the order of a request; place it if there is none."""
        own_id = request_id or new_id("erase")  # with which any caller who joins the order can ask for its end
        recorded = False
        while True:
            earlier = await self._orders.of_request(tenant_id, own_id) if request_id is not None else None
            if earlier is not None:
                return _checked(earlier, name)
            reference = await self._reference(tenant_id, name)
            if reference is None:
                joined = _existing(await self._orders.of_name(tenant_id, name))
                if recorded:  # another caller was first: the audit log names the order, and not this id alone
                    await self._record(actor, joined)
                return joined
            order = await self._place(actor, tenant_id, reference, name=name, request_id=own_id)
            if order is not None:
                return order
            recorded = True

    async def _place(
        self, actor: Actor, tenant_id: str, reference: str, *, name: str, request_id: str
    ) -> ErasureOrder | None:
        """Record and place an order; return None if another one was placed meanwhile."""
        await self._administration.record_erasure(actor, tenant_id, user_reference=reference, request_id=request_id)
        await self._stored_names.claim_sessions(tenant_id, name, reference)
        return await self._orders.place(
            tenant_id, reference, name=name, request_id=request_id, owner=self._replicas.replica_id
        )

    async def _record(self, actor: Actor, order: ErasureOrder) -> None:
        """Record that a caller waits for another caller's order."""
        await self._administration.record_erasure(
            actor, order.tenant_id, user_reference=order.reference, request_id=order.request_id
        )

    async def _reference(self, tenant_id: str, name: str) -> str | None:
        """Return the reference of a name; one that only data of schema 1 has gets a reference now."""
        reference = await self._users.find(tenant_id, name)
        if reference is None and await self._stored_names.has_name(tenant_id, name):
            unfinished = await self._orders.of_name(tenant_id, name)
            if unfinished is None:  # else it is the name of the user who is being erased
                return (await self._users.of_names(tenant_id, [name]))[name]
        return reference

    async def _done(self, order: ErasureOrder) -> ErasureOrder:
        """Wait until an order is done, whichever server carries it out; a caller that is cancelled changes nothing."""
        pauses = Backoff(_SHORTEST_PAUSE, _LONGEST_PAUSE)
        try:
            async with asyncio.timeout(PATIENCE):
                while order.end_time is None:
                    await self._take_over(order)
                    task = self._running.get(order.reference)
                    await (asyncio.wait([task]) if task is not None else asyncio.sleep(pauses.next()))
                    order = _existing(await self._orders.get(order))
        except TimeoutError:
            raise ErasureUnfinished(
                "The erasure takes longer, and goes on. Send it again with this request_id to wait for its end.",
                retry_after=_RETRY_AFTER,
                metadata={"user_reference": order.reference, "request_id": order.request_id or ""},
            ) from None
        return order

    async def _take_over(self, order: ErasureOrder) -> None:
        """Carry out an order here, unless another living server does."""
        if order.reference in self._running or order.owner is None:
            return
        here = self._replicas.replica_id
        if order.owner != here and order.owner in await self._replicas.alive([order.owner]):
            return
        taken = await self._orders.take_over(order, owner=here)
        if taken is not None and order.reference not in self._running:
            task = self._running[order.reference] = asyncio.create_task(self._carry_out(taken))
            task.add_done_callback(lambda _: self._running.pop(order.reference, None))

    async def _carry_out(self, order: ErasureOrder) -> None:
        """Erase until nothing is left, also if the database fails meanwhile, or until another server does it."""
        settled_at = time.monotonic() + _SETTLED
        pauses = Backoff(_SHORTEST_PAUSE, _LONGEST_PAUSE)
        cancelled: set[str] = set()  # the turns whose cancellation was requested: once each, since that is stored
        while True:
            try:
                began = time.monotonic()
                current = await self._orders.get(order)
                if current is None or current.owner != order.owner:
                    return
                found, deleted = await self._erase_some(order, cancelled)
                if not found and began >= settled_at:
                    await self._webhooks.user(order.tenant_id, order.reference)
                    await self._orders.finish(order)
                    log.info("user_erased", tenant_id=order.tenant_id, user_reference=order.reference)
                    return
                pause = pauses.next(changed=deleted > 0)
                await asyncio.sleep(pause if found else max(0.0, settled_at - time.monotonic()))
            except ShuttingDown:
                return  # another server takes the order over
            except GodotyError as error:
                log.warning("user_not_erased", user_reference=order.reference, error=str(error))
                await asyncio.sleep(_BACKOFF)
            except Exception:
                log.exception("erasure_fault", user_reference=order.reference)
                await asyncio.sleep(_BACKOFF)

    async def _erase_some(self, order: ErasureOrder, cancelled: set[str]) -> tuple[int, int]:
        """Delete some sessions, and replace the name in entries; return how many were found, and deleted.

        Args:
            order: The order.
            cancelled: The turns whose cancellation was requested; those that hold sessions are added.
        """
        name = order.name or ""
        await self._stored_names.claim_sessions(order.tenant_id, name, order.reference)
        await self._stored_names.replace_of_user(order.tenant_id, name, order.reference)
        found = await self._sessions.of_user(order.tenant_id, user=name, user_reference=order.reference, limit=_AT_ONCE)
        outcomes = await asyncio.gather(
            *(self._erase_session(order, each, cancelled) for each in found), return_exceptions=True
        )
        for each in outcomes:
            if isinstance(each, BaseException):
                raise each  # once all have ended: each is counted once
        return len(found), outcomes.count(True)

    async def _erase_session(self, order: ErasureOrder, session: UserSession, cancelled: set[str]) -> bool:
        """Delete a session, or cancel the turn that holds it; return whether it is deleted."""
        try:
            deleted = await self._deletions.finish(session)
        except (SessionBusy, SessionLost):
            await self._cancel_turn(session, cancelled)
            return False
        contents = ErasedContents(sessions=deleted.sessions, messages=deleted.messages, turns=deleted.turns)
        await self._orders.add(order, contents)
        return True

    async def _cancel_turn(self, session: UserSession, cancelled: set[str]) -> None:
        """Cancel the turn that holds a session, unless that was requested: it is charged, and releases the session."""
        if session.turn_id is None or session.turn_id in cancelled:
            return
        record = await self._turn_store.find(session.tenant_id, session.turn_id)
        if record is not None:
            await self._turn_store.request_cancel(record)
            cancelled.add(session.turn_id)


def _existing(order: ErasureOrder | None) -> ErasureOrder:
    """Return an order that was read.

    Raises:
        UserNotFound: There is none: no turn has named the user since the last erasure, or the tenant was deleted.
    """
    if order is None:
        raise UserNotFound("The tenant has no such end user.")
    return order


def _checked(order: ErasureOrder, name: str) -> ErasureOrder:
    """Return the order that a request has placed before.

    Once it is done, its name is not known any more, so that it cannot be compared.

    Raises:
        RequestIdReused: It erases another user.
    """
    if order.name not in (name, None):
        raise RequestIdReused("The request id was used for the erasure of another user.")
    return order

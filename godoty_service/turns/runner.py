"""Starts turns: checks the request, acquires the session, and releases everything in reverse order at the end."""

import asyncio
import random
import time
from collections.abc import Awaitable, Sized
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import structlog

from godoty_service.agents.profile import agent_profile
from godoty_service.agents.selection import AgentSelection
from godoty_service.errors import GodotyError, QuotaExceeded, SessionBusy, SessionLost, TurnCancelled, internal_error
from godoty_service.sessions.end_users import acquire_for_user
from godoty_service.sessions.queue import SessionQueue
from godoty_service.sessions.session import Claim, SessionAgent
from godoty_service.sessions.store import DeletionUnfinished, HeldBySameRequest
from godoty_service.tenancy.errors import OutputNotAllowed
from godoty_service.tenancy.policies import Policy
from godoty_service.turns.actions.waiting import ANSWERS, take_answers
from godoty_service.turns.agents.models import fallback_models
from godoty_service.turns.attachments import look_up
from godoty_service.turns.dependencies import TurnDependencies
from godoty_service.turns.execution import ExecutionQueues, TurnExecution
from godoty_service.turns.factory import TurnFactory
from godoty_service.turns.finalizer import TurnEnd
from godoty_service.turns.turn import Turn
from godoty_service.turns.turn_store import TurnRecord
from godoty_service.users.references import EndUser

log = structlog.get_logger(__name__)

_POLL = (0.03, 0.15)  # seconds between two attempts of a turn that waits for a turn of another server
_CHECK_VALID = 1.0  # seconds; a turn that has waited longer is checked again
_SAME_REQUEST_ATTEMPTS = 20  # for a session held by a turn of the same request, which is about to release it


class DuplicateRequest(GodotyError):
    """The request id was used before, by the turn of this record. Internal: `TurnService` reads that turn instead."""

    def __init__(self, record: TurnRecord) -> None:
        super().__init__("The request id was used before.")
        self.record = record


class TurnRunner:
    """Runs turns."""

    def __init__(self, dependencies: TurnDependencies, factory: TurnFactory) -> None:
        self._dependencies = dependencies
        self._factory = factory
        self._session_queue = SessionQueue()
        self._execution_queues = ExecutionQueues()

    @property
    def beginning(self) -> Sized:
        """The turns that have not sent their first request, without those that wait for a session or a tool server."""
        return self._execution_queues.starting

    async def run(self, turn: Turn) -> None:
        """Run a turn to its end, and end its log on every way out."""
        structlog.contextvars.bind_contextvars(
            tenant_id=turn.tenant_id, session_id=turn.request.session_id, turn_id=turn.turn_id
        )
        record = self._record(turn)
        refusal: GodotyError | None = None
        end: TurnEnd | None = None
        async with AsyncExitStack() as stack:
            stack.enter_context(self._dependencies.leases.holder(turn.turn_id))
            start = _TurnStart(self._dependencies, self._session_queue, turn=turn, record=record, stack=stack)
            try:
                claim = await start.run()
            except asyncio.CancelledError:
                refusal = turn.cancelled_by or TurnCancelled("The turn was cancelled.")
            except GodotyError as error:
                refusal = error
            except Exception:
                log.exception("turn_fault")
                refusal = internal_error(turn.turn_id)
            else:
                end = await self._execute(turn, claim)
        # The readers see the end once nothing that the turn held can delay the next turn.
        if end is not None and (turn.log.sequence or end.error is None):
            _publish_end(turn, end)
        else:
            await self._refuse(turn, record, refusal or (end and end.error) or internal_error(turn.turn_id))
        await self._dependencies.log_flusher.wait_flushed(turn)

    async def _execute(self, turn: Turn, claim: Claim) -> TurnEnd:
        turn.started, turn.user_reference = True, claim.session.user_reference
        self._dependencies.log_flusher.track(turn)
        execution = TurnExecution(
            self._dependencies, factory=self._factory, queues=self._execution_queues, turn=turn, claim=claim
        )
        with self._dependencies.observer.running_turn():
            return await execution.run()

    def _record(self, turn: Turn) -> TurnRecord:
        return TurnRecord(
            turn_id=turn.turn_id,
            tenant_id=turn.tenant_id,
            session_id=turn.request.session_id,
            request_id=turn.request.request_id,
            fingerprint=turn.request.fingerprint,
            replica_id=self._dependencies.replicas.replica_id,
            model=turn.request.model,
        )

    async def _refuse(self, turn: Turn, record: TurnRecord, error: GodotyError) -> None:
        """End a turn that has not begun; its request id can be used again."""
        self._dependencies.log_flusher.untrack(turn)
        try:
            if turn.recorded and not isinstance(error, DuplicateRequest):
                await self._dependencies.turn_store.delete_refused(record)
        except GodotyError as failure:  # `TurnStore.reap` retries it
            log.warning("turn_record_not_deleted", error=str(failure))
        finally:
            turn.log.end(error)  # last: a reader that sees it may use the request id at once


class _TurnStart:
    """One turn's way to its session.

    The order is: look the request id up, check the request and the tenant's limits, enter this server's line of the
    session, insert the turn's record, acquire the tenant's limit, acquire the session's lease. What was acquired is
    released by the stack, in reverse order, except the lease: a turn that starts releases it with its end, and one
    that does not releases it here.

    Args:
        dependencies: The collaborators of turns.
        queue: This server's lines of turns.
        turn: The turn.
        record: Its record.
        stack: Releases what the turn has acquired.
    """

    def __init__(
        self,
        dependencies: TurnDependencies,
        queue: SessionQueue,
        *,
        turn: Turn,
        record: TurnRecord,
        stack: AsyncExitStack,
    ) -> None:
        self._dependencies = dependencies
        self._queue = queue
        self._turn = turn
        self._request = turn.request
        self._record = record
        self._stack = stack
        self._selection = AgentSelection(dependencies.agents, turn.tenant_id, turn.request.agent)

    async def run(self) -> Claim:
        """Check the request and acquire its session.

        Raises:
            DuplicateRequest: The request id was used before.
            SessionBusy: Another turn holds the session, and the caller does not wait.
            SessionLost: The server lost touch with the database, and the turn may run elsewhere.
            QuotaExceeded, ModelNotAllowed: A limit is reached, or the policy or the key does not allow a model.
            AgentNotFound, AgentMismatch: There is no such agent, or the session has another one.
            AttachmentNotFound, AttachmentRejected: An attachment is not there, or none that is taken.
            InvalidRequest: The agent does not let the request override a field, or its prompt needs a value.
            ActionNotFound, ActionClosed, ActionDecided, ActionExpired, ReviewerOnly: An answer cannot be taken.
            OutputNotAllowed, ProviderKeysOff: The policy allows no output, or the own provider key cannot be decrypted.
            InvalidApiKey, TenantSuspended, TenantDeleted: The key or the tenant has ended while the turn waited.
        """
        position = await self._check_request()
        await look_up(self._dependencies, self._turn, self._stack)
        return await self._begin(position)

    async def _check_request(self) -> Awaitable[None]:
        """Check what can be refused before the turn is recorded; a request that is known is never refused.

        Returns:
            The turn's position in this server's line of the session.

        Raises:
            SessionBusy: The session is held here, and the caller does not wait. Raised before any database operation
                unless there is a request id to look up.
        """
        if self._request.request_id is None:
            position = self._join_queue()
            await self._check_limits()
            return position
        # A known request must not delay other turns: it enters the line once it is known to be the first.
        for failure in await asyncio.gather(self._check_duplicate(), self._check_limits(), return_exceptions=True):
            if failure is not None:
                raise failure
        return self._join_queue()

    def _join_queue(self) -> Awaitable[None]:
        request = self._request
        return self._stack.enter_context(self._queue.join(self._turn.tenant_id, request.session_id, wait=request.wait))

    async def _check_duplicate(self) -> None:
        _refuse_duplicate(
            await self._dependencies.turn_store.of_request(self._turn.tenant_id, self._request.request_id or "")
        )

    async def _check_limits(self) -> None:
        """Check the request against the tenant's policy, and against limits that were reached a moment ago."""
        await self._read_permissions()
        self._dependencies.turn_limiter.check(self._turn.tenant_id, self._turn.policy)
        self._dependencies.turn_limiter.check_key(self._turn.key_id, self._turn.key_limits)

    async def _read_permissions(self) -> None:
        """Read policy, provider client and agent; check that output is allowed, and the request's models."""
        turn, dependencies = self._turn, self._dependencies
        policy, client, _ = await asyncio.gather(
            dependencies.policies.get(turn.tenant_id),
            dependencies.client_pool.of_tenant(turn.tenant_id),
            self._selection.read(),
        )
        turn.admit(policy=policy, client=client)
        if policy.max_output_tokens == 0:
            raise OutputNotAllowed("The tenant's policy allows no output tokens.")
        turn.check_models(*filter(None, [self._request.model]), *self._request.fallback_models)

    async def _begin(self, position: Awaitable[None]) -> Claim:
        """Insert the turn's record and acquire its session, concurrently."""
        turn, dependencies = self._turn, self._dependencies
        turn.recorded, epoch = True, dependencies.replicas.epoch
        acquiring = asyncio.create_task(self._acquire(position))
        inserting = asyncio.create_task(dependencies.turn_store.begin(self._record))
        try:
            _refuse_duplicate(await asyncio.shield(inserting))
            claim = await asyncio.shield(acquiring)
            if self._request.continues:
                await take_answers(dependencies, turn, claim)
                self._request = turn.request
            if not dependencies.replicas.lease_valid(epoch):
                await self._check_record()
            claim = await self._take_agent(claim)
            turn.check_models(claim.session.model, *fallback_models(turn))
        except BaseException:
            turn.begin_cleanup()
            with suppress(GodotyError):
                await inserting  # a record that is inserted late would use up the request id
            await self._release_lease(acquiring)
            raise
        return claim

    async def _take_agent(self, claim: Claim) -> Claim:
        """Take the version of the session's agent for this turn; return the claim with the model that it calls.

        Everything that is read for it is cached in the usual case.

        Raises:
            AgentNotFound: There is no such agent, or it is deleted and the session is new.
            AgentMismatch: The session has another agent.
            AgentNotAllowed, ToolNotAllowed: The tenant's policy does not allow the agent, or a tool of it.
            InvalidRequest: The agent does not let the request override a field, or its prompt needs a value.
        """
        dependencies, request, session = self._dependencies, self._request, claim.session
        waited = self._turn.waited
        version = (
            waited.version
            if waited is not None
            else await self._selection.version(
                session.session_id, session.agent, pinned=session.agent_version, created=claim.created
            )
        )
        self._turn.policy.check_agent(version.name, version.definition.policy_names)
        output = request.output or await dependencies.schemas.stored(version.definition.output_schema)
        self._turn.take_agent(
            agent_profile(
                version,
                request.agent_input,
                today=dependencies.clock().date(),
                tools=dependencies.tools,
                defaults=dependencies.defaults.agent,
                output=output,
            )
        )
        model = waited.step.model if waited is not None else request.model or version.definition.model
        return replace(claim, session=replace(session, model=model)) if model else claim

    async def _check_record(self) -> None:
        """Check that the turn is still this server's after a time in which others may have considered it dead.

        Raises:
            SessionLost: A retry of its request may run elsewhere.
        """
        record = self._record
        found = await self._dependencies.turn_store.find(record.tenant_id, record.turn_id)
        if found is None or found.replica_id != record.replica_id:
            raise SessionLost("The server lost touch with the database.", retry_after=1.0)

    async def _acquire(self, position: Awaitable[None]) -> Claim:
        """Acquire the session, first among this server's turns, then among all servers'.

        The limit is acquired after this server's line: a turn that waits there does not run.
        """
        waited = not (isinstance(position, asyncio.Future) and position.done())
        await position
        if waited:
            await self._check_again()
        checked_at = time.monotonic()
        await self._acquire_limit()
        attempts = 0
        while True:
            attempts += 1
            if attempts > 1 and time.monotonic() - checked_at > _CHECK_VALID:
                await self._check_again()
                checked_at = time.monotonic()
            try:
                return await self._acquire_lease()
            except DeletionUnfinished as unfinished:
                await self._dependencies.deletions.finish(unfinished.session)
            except SessionBusy as busy:
                same_request = isinstance(busy, HeldBySameRequest) and attempts < _SAME_REQUEST_ATTEMPTS
                if not (self._request.wait or same_request):
                    raise
                await asyncio.sleep(random.uniform(*_POLL))  # noqa: S311 - it spreads load and protects no secret

    async def _acquire_lease(self) -> Claim:
        """Acquire the session's lease for the end user that the request names."""
        users, leases = self._dependencies.users, self._dependencies.leases
        return await acquire_for_user(users, leases, self._turn.tenant_id, self._request.user, self._attempt_lease)

    async def _attempt_lease(self, user: EndUser | None) -> Claim:
        """Try to acquire the session's lease; an attempt that was sent is awaited though the turn is cancelled."""
        turn, request = self._turn, self._request
        turn.epoch = self._dependencies.replicas.epoch
        selection, default = self._selection, turn.policy.default_model or self._dependencies.defaults.model
        attempt = asyncio.create_task(
            self._dependencies.leases.acquire(
                turn.tenant_id,
                request.session_id,
                turn_id=turn.turn_id,
                request_id=request.request_id,
                text=request.text or ANSWERS,
                answers=request.continues,
                model=request.model,
                default_model=selection.model or default,
                user=user,
                agent=SessionAgent(selection.name, selection.pinned),
                attachments=turn.attachment_blocks,
                new=request.new_session,
            )
        )
        try:
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            with suppress(GodotyError):
                return await attempt  # `_release_lease` releases it
            raise

    async def _check_again(self) -> None:
        """Check the turn's key and its request after it has waited; the limiter checks the rest."""
        await asyncio.gather(self._dependencies.key_monitor.check(self._turn), self._read_permissions())

    async def _acquire_limit(self) -> None:
        """Acquire the tenant's limit; the stack releases it, also if the acquisition is cancelled or fails."""
        acquiring = asyncio.create_task(self._acquire_limits())
        self._stack.push_async_callback(self._release_limit, acquiring, self._turn.policy)
        await asyncio.shield(acquiring)

    async def _acquire_limits(self) -> None:
        """Acquire the key's limit, then the tenant's: a key above its own rate must not use up the tenant's."""
        turn, limiter = self._turn, self._dependencies.turn_limiter
        await limiter.acquire_key(turn.key_id, turn.key_limits)
        await limiter.acquire(turn.tenant_id, turn.turn_id, turn.policy)

    async def _release_limit(self, acquiring: "asyncio.Task[None]", policy: Policy) -> None:
        """Release the tenant's limit by the policy with which it was acquired: it may have changed since."""
        try:
            await acquiring  # one that is acquired late must not count until it expires
        except QuotaExceeded:
            return
        except GodotyError as error:  # it may have been acquired all the same
            log.warning("turn_limit_not_acquired", error=str(error))
        await self._dependencies.turn_limiter.release(self._turn.tenant_id, self._turn.turn_id, policy)

    async def _release_lease(self, acquiring: "asyncio.Task[Claim]") -> None:
        """Release a lease that is no longer needed, even if it is just being acquired.

        A task that waits is cancelled in its sleep; an operation that was sent to the database is awaited.
        """
        if not acquiring.done():
            acquiring.cancel()
        with suppress(asyncio.CancelledError, GodotyError):
            await acquiring
        if not acquiring.cancelled() and acquiring.exception() is None:
            await self._dependencies.leases.release(acquiring.result().session)


def _publish_end(turn: Turn, end: TurnEnd) -> None:
    """Append the end of a turn to its log."""
    if end.finished is not None:
        turn.log.append(end.finished)
    turn.log.end(end.error)


def _refuse_duplicate(earlier: TurnRecord | None) -> None:
    if earlier is not None:
        raise DuplicateRequest(earlier)

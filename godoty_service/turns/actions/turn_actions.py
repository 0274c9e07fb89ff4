"""The actions of one turn: the step that waits, and its calls, for the guards of all agents of the turn."""

from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from godoty_service.actions.action import Step, StepCall
from godoty_service.actions.stores import ActionStores
from godoty_service.aio.shielded_writes import ShieldedWrites
from godoty_service.budgets.charges import call_charge
from godoty_service.clock import Clock
from godoty_service.ids import new_id
from godoty_service.ledger.entries import CallPurpose, ModelCall
from godoty_service.pricing import money
from godoty_service.sessions.session import Session
from godoty_service.turns.actions.kept_request import request_to_text
from godoty_service.turns.event_log.flusher import EventLogFlusher
from godoty_service.turns.turn import Turn, WaitedStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What the turns before this one have used of the limits that they share.

    Attributes:
        model_calls: Their model calls, without summaries and retries.
        output_tokens: The output tokens of these.
        cost: What all of their calls cost, or cost at most, in US dollars.
    """

    model_calls: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class _Begun:
    """The present step of the turn's own agent."""

    step_id: str
    message: int
    expire_time: datetime


class TurnActions:
    """The waiting step of a turn.

    Attributes:
        stores: Where it is stored.
        step: The step with which the turn goes on, or the one in which it asks; None: neither.
        open: The actions that the turn leaves open, by id.
    """

    def __init__(
        self, stores: ActionStores, turn: Turn, session: Session, *, flusher: EventLogFlusher, clock: Clock
    ) -> None:
        """Create it.

        Args:
            stores: Where actions are stored.
            turn: The turn.
            session: Its session, with the model that the turn calls.
            flusher: Stores the turn's event log.
            clock: Returns the time.
        """
        self.stores = stores
        self._turn = turn
        self._session = session
        self._flusher = flusher
        self._clock = clock
        self._waited: WaitedStep | None = turn.waited
        self.step: Step | None = turn.waited.step if turn.waited is not None else None
        self._begun: _Begun | None = None
        self.open: dict[str, StepCall] = {}
        self._writes = ShieldedWrites()

    def calls_of(self, path: str, number: int) -> list[StepCall]:
        """Return the stored calls of an agent's step with tools, in their order; none: it is a new one."""
        known: Iterable[StepCall] = self._waited.calls if self._waited is not None else ()
        return [each for each in known if (each.path, each.number) == (path, number)]

    def begin_step(self, message: int) -> None:
        """Begin a step of the turn's own agent: what is stored from now on belongs to it.

        Args:
            message: The number of the session's message that has its calls.
        """
        if self.step is not None and self.step.message == message:
            self._begun = _Begun(self.step.step_id, message, self.step.expire_time)
        else:
            now = self._clock()
            self._begun = _Begun(new_id("step", made=now), message, now + self.stores.retention)

    async def open_step(self) -> None:
        """Store the step, whose calls are stored: from now on the session waits."""
        begun, turn, session = self._present, self._turn, self._session
        if self.step is not None and self.step.step_id == begun.step_id:
            return
        before = self.step.turn_ids if self.step is not None else ()
        step = Step(
            step_id=begun.step_id,
            tenant_id=turn.tenant_id,
            session_uid=session.uid,
            session_id=session.session_id,
            message=begun.message,
            turn_ids=tuple(dict.fromkeys((*before, turn.turn_id))),
            key_id=turn.key_id,
            agent=turn.agent.name,
            agent_version=turn.agent.version.version,
            model=session.model,
            request=request_to_text(turn.request),
            create_time=self._clock(),
            expire_time=begun.expire_time,
        )
        await self.stores.steps.insert(step)
        self.step = step

    @property
    def _present(self) -> "_Begun":
        if self._begun is None:
            raise RuntimeError("the turn's own step begins before those of its sub-agents")
        return self._begun

    def common(self) -> dict[str, Any]:
        """Return the fields that all calls have that the turn stores now."""
        begun = self._present
        return {
            "step_id": begun.step_id,
            "tenant_id": self._turn.tenant_id,
            "session_uid": self._session.uid,
            "session_id": self._session.session_id,
            "turn_id": self._turn.turn_id,
            "create_time": self._clock(),
            "expire_time": begun.expire_time,
        }

    def ask(self, action: StepCall) -> StepCall:
        """Note an action that is open; return it."""
        self.open[action.call_id] = action
        return action

    async def log_stored(self) -> None:
        """Wait until the turn's event log is stored up to now.

        Raises:
            GodotyError: It cannot be: another server has ended the turn.
        """
        await self._flusher.wait_stored(self._turn)

    def store_log(self) -> None:
        """Have the turn's event log stored up to now, without waiting for it."""
        self._flusher.store_soon(self._turn)

    async def complete(self, write: Coroutine[Any, Any, None]) -> None:
        """Do a write to its end, also if the turn is cancelled meanwhile: `settled` waits for it."""
        await self._writes.shielded(write)

    async def settled(self) -> None:
        """Wait until no write is running. Never raises."""
        await self._writes.wait_all()

    def left_open(self) -> tuple[StepCall, ...]:
        """Return the actions that are open at the turn's end, without their inputs."""
        return tuple(replace(each, input_json="") for each in self.open.values())

    def waits_at(self, last_number: int) -> Step | None:
        """Return the step if the session's last message has its calls: nothing has answered them."""
        return self.step if self.step is not None and self.step.message == last_number else None

    def used(self, path: str = "") -> Used:
        """Return what the turns before this one have used: all of their agents, or one with those that it calls."""
        entries = self._waited.entries if self._waited is not None else ()
        below = [each for each in entries if not path or f"{each.agent_path or ''}/".startswith(f"{path}/")]
        own = [
            each for each in below if each.purpose is not CallPurpose.SUMMARY and each.attempt <= 1 and each.counts.call
        ]
        return Used(
            model_calls=len(own),
            output_tokens=sum(each.usage.output_tokens or 0 for each in own if each.usage is not None),
            cost=money.total(_charge(each) for each in below),
        )

    @property
    def numbered(self) -> int:
        """The highest number of a sub-agent's call in the turns before this one."""
        entries = self._waited.entries if self._waited is not None else ()
        calls = self._waited.calls if self._waited is not None else ()
        paths = [*(each.agent_path or "" for each in entries), *(each.path for each in calls)]
        paths += [each.callee.path for each in calls if each.callee is not None]
        numbers = (part.rpartition("#")[2] for path in paths for part in path.split("/"))
        return max((int(each) for each in numbers if each.isdecimal()), default=0)


def _charge(call: ModelCall) -> Decimal:
    return (call.upper_bound or Decimal(0)) if call.counts.open else call_charge(call)


def less(limit: int | None, used: int) -> int | None:
    """Return what is left of a limit; None: it is unlimited."""
    return None if limit is None else max(0, limit - used)

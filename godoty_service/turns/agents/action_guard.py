"""Stands before the tool calls of one agent of a turn: some wait for an answer, and each runs once.

The calls of a step are in memory until one of them waits: then all of them are stored, with what has run and what it
gave, before readers see an action. From then on each start and each result is stored by itself, so that any server can
go on with the step. If the agent is a sub-agent, its conversation is stored with the call that runs it, and the steps
of the agents above it are stored first.

In a step of the turn's own agent that does not wait, no tool begins before the message with its call is stored. If the
step has several calls, the turn's event log is stored before each of them begins, and when one ends before the others:
so the server that completes the history of a dead one knows which calls had begun, and the results that there were.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog
from strands.agent import Agent
from strands.hooks import AfterToolCallEvent, BeforeToolCallEvent, BeforeToolsEvent, HookProvider, HookRegistry
from strands.types.content import ContentBlock
from strands.types.tools import AgentTool, ToolUse

from godoty_service import exact_json
from godoty_service.actions.action import Callee, CallKind, StepCall, Verdict
from godoty_service.agents.approval import Approval
from godoty_service.agents.definitions import ToolEntry
from godoty_service.agents.output.schemas import OutputSchemas
from godoty_service.agents.profile import AgentProfile
from godoty_service.agents.tools.client import OfferedClientTool
from godoty_service.errors import SessionLost, StorageError
from godoty_service.ids import new_id
from godoty_service.openrouter.decoding.tool_calls import unparsed_input
from godoty_service.sessions import history_repair
from godoty_service.sessions.strands_session_manager import MongoSessionManager
from godoty_service.turns.actions.turn_actions import TurnActions
from godoty_service.turns.agents.call_rules import approval_of, entry_of, is_idempotent, refusal_of, verdict_of
from godoty_service.turns.agents.kept_tools import KeptResult, Waiting
from godoty_service.turns.agents.listeners import EventSink
from godoty_service.turns.event_log.events import ActionRequired

log = structlog.get_logger(__name__)

_TOO_LONG: Final = "The call was not made: the conversation is too long to wait for an approval."
_MAX_CONVERSATION: Final = 8 * 1024 * 1024  # bytes of a sub-agent's conversation as JSON

Suspend = Callable[[Callee], Awaitable[None]]
Proceed = Callable[[], Coroutine[Any, Any, None]]
OutputOf = Callable[[StepCall], Awaitable[dict[str, Any]]]


@dataclass(slots=True)
class _Call:
    """A tool call of the present step.

    Attributes:
        use: The call, as the tool gets it.
        kind: What it needs.
        idempotent: It may be made again if its outcome is unknown.
        approval: The approval that it needs, if any.
        closes: Without an answer in time it closes the step.
        stored: It as it is stored; None: it is not.
        begun_before: Another turn started it, and no result is known.
        started: It was started in this turn.
        result: Its result.
        refusal: Why it is not made; empty: it may be.
        changed: It is made with another input than the model's.
        callee: The sub-agent that waits in it.
    """

    use: ToolUse
    kind: CallKind = CallKind.TOOL
    idempotent: bool = False
    approval: Approval | None = None
    closes: bool = False
    stored: StepCall | None = None
    begun_before: bool = False
    started: bool = False
    result: dict[str, Any] | None = None
    refusal: str = ""
    changed: bool = False
    callee: Callee | None = None


class ActionGuard(HookProvider):
    """The guard of one agent."""

    def __init__(
        self,
        actions: TurnActions,
        profile: AgentProfile,
        *,
        schemas: OutputSchemas,
        log: EventSink,
        output_of: OutputOf,
        manager: MongoSessionManager | None = None,
        path: str = "",
        suspend: Suspend | None = None,
        proceed: Proceed | None = None,
        steps_before: int = 0,
    ) -> None:
        """Create the guard.

        Args:
            actions: The actions of the turn.
            profile: The agent.
            schemas: Reads the conditions of its tools.
            log: Gets the actions that are open.
            output_of: Returns the result of a client tool that was answered.
            manager: Stores the messages of the turn's own agent; None: it is a sub-agent.
            path: The path of a sub-agent.
            suspend: Stores that a sub-agent waits, before its own calls are stored.
            proceed: Stores that a sub-agent that waited before this turn does not wait any more; None: it did not.
            steps_before: The number of steps with tools that a sub-agent had in the turns before this one.
        """
        self._actions = actions
        self._profile = profile
        self._schemas = schemas
        self._log = log
        self._output_of = output_of
        self._manager = manager
        self._path = path
        self._suspend = suspend
        self._proceed = proceed
        self._number = steps_before
        self._lock = asyncio.Lock()
        self._agent: Agent | None = None
        self._calls: list[_Call] = []
        self._logs_calls = False  # the event log says which calls of the step have begun

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register the hooks before the calls of a step, before each of them, and after readers have seen its end."""
        registry.add_callback(BeforeToolsEvent, self._on_step)
        registry.add_callback(BeforeToolCallEvent, self._before)
        registry.add_callback(AfterToolCallEvent, self._ended)

    def known(self, message: int) -> dict[str, ContentBlock]:
        """Return what is known of the calls of a message without results, by id; none: it is of no step that began.

        Args:
            message: The number of the message, which is the session's last one.
        """
        if self._manager is None or self._number != message:
            return {}
        ids = {each.use["toolUseId"]: each for each in self._calls}
        return {
            each: history_repair.result_of(each, call.result)
            if call.result is not None
            else history_repair.error_result(each, history_repair.UNKNOWN_OUTCOME)
            for each, call in ids.items()
            if call.result is not None or call.started
        }

    def callee(self, tool_call_id: str) -> Callee | None:
        """Return the sub-agent that waits in a call; None: none does."""
        found = (each.stored for each in self._calls if each.use["toolUseId"] == tool_call_id)
        return next((each.callee for each in found if each is not None), None)

    async def suspend(self, tool_call_id: str, callee: Callee) -> None:
        """Store that the sub-agent of a call waits, with all calls of the step; no cancel interrupts it."""
        await self._actions.complete(self._suspend_call(tool_call_id, callee))

    async def proceed(self, tool_call_id: str) -> None:
        """Record that the sub-agent of a call runs further tools: it cannot go on again from where it waited."""
        call = next(each for each in self._calls if each.use["toolUseId"] == tool_call_id)
        if call.stored is not None:
            await self._actions.stores.calls.leave(call.stored)

    async def _suspend_call(self, tool_call_id: str, callee: Callee) -> None:
        async with self._lock:
            call = next(each for each in self._calls if each.use["toolUseId"] == tool_call_id)
            call.callee = callee
            if call.stored is None:
                await self._store()
            else:
                await self._actions.stores.calls.suspend(call.stored, callee)

    async def _on_step(self, event: BeforeToolsEvent) -> None:
        """Find what the calls of a step need, and store them if one of them asks."""
        uses = [block["toolUse"] for block in event.message["content"] if "toolUse" in block]
        registry = event.agent.tool_registry.registry
        self._agent, self._calls = event.agent, []
        self._number = self._number + 1 if self._manager is None else self._manager.last_number
        if self._manager is not None:
            self._actions.begin_step(self._number)
        known = self._actions.calls_of(self._path, self._number)
        if len(known) == len(uses):
            entries = [entry_of(self._profile.definition, registry.get(use["name"])) for use in uses]
            self._calls = [_known(*each) for each in zip(uses, known, entries, strict=True)]
        else:
            self._calls = [await self._classify(use, registry.get(use["name"])) for use in uses]
            if any(each.kind is not CallKind.TOOL for each in self._calls):
                await self._actions.complete(self._record())
            elif self._manager is not None:
                await self._manager.flush()
            elif self._proceed is not None:
                await self._actions.complete(self._proceed())
                self._proceed = None
        self._logs_calls = self._manager is not None and len(uses) > 1
        for each in self._calls:
            if each.stored is not None and each.stored.is_open and not each.refusal:
                self._log.append(ActionRequired(self._actions.ask(each.stored)))

    async def _before(self, event: BeforeToolCallEvent) -> None:
        call = self._call_of(event.tool_use)
        if call is None:
            return
        if call.result is not None:
            event.selected_tool = KeptResult(call.result, shown=True)
            return
        action = call.stored if call.kind is not CallKind.TOOL else None
        if action is not None and not call.refusal:
            if action.is_open:
                event.selected_tool = Waiting()
                event.interrupt("action")
            call.refusal = refusal_of(action)
            if verdict_of(action) is Verdict.OUTPUT:
                event.selected_tool = KeptResult(await self._output_of(action), shown=False)
                return
        if call.begun_before and not call.idempotent and not call.refusal:
            call.refusal = history_repair.UNKNOWN_OUTCOME
        if call.refusal:
            event.cancel_tool = call.refusal
            return
        await self._start(call)
        if action is not None and action.decision is not None and action.decision.answer.input_json:
            changed: ToolUse = {**event.tool_use, "input": exact_json.loads(action.decision.answer.input_json)}
            call.use, call.changed = changed, True
            event.tool_use = changed

    async def finished(self, event: AfterToolCallEvent) -> None:
        """Take the result of a call; it is durable if the step is stored."""
        call = self._call_of(event.tool_use)
        if call is None or call.result is not None:
            return
        if call.changed:
            text = f"[The call was approved with another input: {json.dumps(call.use['input'], ensure_ascii=False)}]"
            event.result = {**event.result, "content": [*event.result["content"], {"text": text}]}
        result = {"status": event.result["status"], "content": event.result["content"]}
        async with self._lock:
            if call.stored is not None:
                await self._finish(call.stored, result)
            call.result = result

    async def starting(self, event: BeforeToolCallEvent) -> None:
        """Have the start of a call stored before it begins, if the step has others."""
        call = self._call_of(event.tool_use)
        if self._logs_calls and call is not None and call.stored is None and call.started:
            await self._actions.log_stored()

    def _ended(self, event: AfterToolCallEvent) -> None:
        """Have the result of a call stored while others run: the results of all are stored as a message."""
        call = self._call_of(event.tool_use)
        running = any(each.started and each.result is None for each in self._calls)
        if self._logs_calls and running and call is not None and call.stored is None:
            self._actions.store_log()

    def _call_of(self, use: ToolUse) -> _Call | None:
        """Return a call of the step. By identity: an id may be there twice."""
        return next((each for each in self._calls if each.use is use), None)

    async def _start(self, call: _Call) -> None:
        async with self._lock:
            call.started = True
            new = call.stored is not None and not call.stored.started
            if new and call.stored is not None and not await self._actions.stores.calls.start(call.stored):
                raise SessionLost("Another server goes on with the session.", retry_after=1.0)

    async def _finish(self, stored: StepCall, result: dict[str, Any]) -> None:
        """Store a result. If the database fails, the message with all results may still be stored: the call has run."""
        try:
            await self._actions.stores.calls.finish(stored, result)
        except StorageError as failure:
            log.warning("result_not_stored", action_id=stored.call_id, error=str(failure))

    async def _record(self) -> None:
        """Store the calls of the step."""
        async with self._lock:
            await self._store()

    async def _store(self) -> None:
        """Store the calls of the step, then those of the agents above: what is stored last makes all of it count."""
        callee = None
        if self._manager is not None:
            await self._manager.flush()
        elif (callee := await self._own_state()) is None:
            for each in self._calls:
                each.refusal = _TOO_LONG if each.kind is not CallKind.TOOL else ""
            return
        stored = [self._to_store(place, each) for place, each in enumerate(self._calls)]
        await self._actions.stores.calls.insert(stored)
        if callee is not None and self._suspend is not None:
            await self._suspend(callee)
        else:
            await self._actions.open_step()
        for call, kept in zip(self._calls, stored, strict=True):
            call.stored = kept

    async def _own_state(self) -> Callee | None:
        """Return a sub-agent's conversation; None: it is too long to be stored."""
        messages = list(self._agent.messages) if self._agent is not None else []
        text, size = await asyncio.to_thread(_encoded, messages)
        if size > _MAX_CONVERSATION:
            return None
        version = self._profile.version
        return Callee(path=self._path, name=version.name, version=version.version, steps=self._number, messages=text)

    def _to_store(self, place: int, call: _Call) -> StepCall:
        common = self._actions.common()
        return StepCall(
            **common,
            call_id=new_id("act" if call.kind is not CallKind.TOOL else "call", made=common["create_time"]),
            path=self._path,
            number=self._number,
            place=place,
            tool_call_id=call.use["toolUseId"],
            name=call.use["name"],
            input_json=json.dumps(call.use["input"], ensure_ascii=False),
            kind=call.kind,
            reviewer=call.approval is not None and call.approval.reviewer,
            why=call.approval.why if call.approval is not None else "",
            closes_on_expiry=call.closes,
            started=call.started,
            result=call.result,
            callee=call.callee,
        )

    async def _classify(self, use: ToolUse, tool: AgentTool | None) -> _Call:
        """Return a call with what it needs."""
        entry = entry_of(self._profile.definition, tool)
        call = _Call(use, idempotent=is_idempotent(entry))
        if tool is None or unparsed_input(use["input"]) is not None:
            return call
        if isinstance(tool, OfferedClientTool):
            call.kind, call.closes = CallKind.CLIENT, tool.closes_on_expiry
        elif (approval := approval_of(entry)) is not None and await self._asks(approval, use["input"]):
            call.kind, call.approval, call.closes = CallKind.APPROVAL, approval, approval.closes_on_expiry
        return call

    async def _asks(self, approval: Approval, arguments: Any) -> bool:
        """Return whether a call with some input needs an approval."""
        condition = await self._schemas.stored(approval.condition)
        if condition is None:
            return True
        text = json.dumps(arguments, ensure_ascii=False)
        return await asyncio.to_thread(condition.matches, text) is not False


class ActionResults(HookProvider):
    """Gives a guard the results of calls before readers see them, and their starts after that."""

    def __init__(self, guard: ActionGuard) -> None:
        self._guard = guard

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """Register the hooks. After a call, Strands calls the last hook provider of an agent first."""
        registry.add_callback(BeforeToolCallEvent, self._starting)
        registry.add_callback(AfterToolCallEvent, self._finished)

    async def _starting(self, event: BeforeToolCallEvent) -> None:
        await self._guard.starting(event)

    async def _finished(self, event: AfterToolCallEvent) -> None:
        await self._guard.finished(event)


def _known(use: ToolUse, stored: StepCall, entry: ToolEntry | None) -> _Call:
    """Return a call that is stored."""
    begun = stored.started and stored.result is None and stored.callee is None
    return _Call(
        use,
        kind=stored.kind,
        idempotent=is_idempotent(entry),
        stored=stored,
        begun_before=begun,
        started=stored.started,
        result=stored.result,
    )


def _encoded(messages: list[Any]) -> tuple[str, int]:
    """Return a conversation as JSON, and its bytes; what is no character is replaced, as in stored messages."""
    text = json.dumps(messages, ensure_ascii=False).encode("utf-8", "replace")
    return text.decode(), len(text)

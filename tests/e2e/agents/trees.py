"""Trees of agents: definitions that call one another, texts that make the sandbox call them, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from godoty.v1 import session_pb2, turn_pb2

from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.states import CallState
from tests.e2e.agents.conftest import Definer
from tests.support.caller import Turn
from tests.support.service import Service, soon

CHEAP, OTHER = "openai/gpt-4o-mini", "openai/gpt-4o"
CHAIN = ("coordinator", "researcher", "checker", "clerk")  # each calls the next one; three below the turn's own
DEPTHS = range(len(CHAIN))
HOLD = "@sandbox plain tokens=50 hold_after=2 hold=never please"  # the last word ends the directive, also in JSON
SUMMARY = {"messages": 4, "mode": "HISTORY_MODE_SUMMARY"}


def asks(agent: str, task: str, *, calls: int = 2, parallel: int = 1) -> str:
    """Return a text by which the model asks a sub-agent, once in each of its answers but the last."""
    arguments = _quoted({"task": task})
    return f"@sandbox tool-loop calls={calls} parallel={parallel} tool=agent_{agent} input='{arguments}'"


def reaching(depth: int, deepest: str) -> str:
    """Return a text by which each agent of the chain asks the next one, and the one at a depth gets a text."""
    text = deepest
    for name in reversed(CHAIN[1 : depth + 1]):
        text = asks(name, text)
    return text


def summing(expression: str = "6 * 7", *, calls: int = 99) -> str:
    """Return a text by which the model calculates, in all of its answers but the last; a summary takes results away."""
    return f"@sandbox tool-loop calls={calls} tool=calculator input='{_quoted({'expression': expression})}'"


def summarizing(next_agent: str = "", task: str = "") -> str:
    """Return a text by which the model calculates, asks an agent, and answers after the summary of both."""
    arguments = _quoted({"expression": "6 * 7", "task": task})
    both = "" if next_agent else " tool=calculator"  # else the tools in turn, which take what they know of the input
    return f"@sandbox tool-loop calls=9 until=Summarized{both} input='{arguments}'"


def _quoted(arguments: dict[str, str]) -> str:
    """Return the input of a tool so that it can be in a directive, which is in the input of another tool."""
    return json.dumps(arguments).replace("@", "\\u0040").replace("'", "\\u0027")


def tools(*agents: str) -> list[dict[str, Any]]:
    """Return the tools by which an agent calls others."""
    return [{"agent": {"agent": each, "description": f"Knows what {each} knows."}} for each in agents]


async def tree(definer: Definer, *, model: str = CHEAP, **top: Any) -> None:
    """Apply three agents, each of which calls the next one."""
    await definer.apply("checker", system_prompt="You check.", tools=[{"builtin": "calculator"}])
    await definer.apply("researcher", system_prompt="You research.", model=model, tools=tools("checker"))
    await definer.apply("coordinator", system_prompt="You coordinate.", tools=tools("researcher"), **top)


async def chain(definer: Definer, *, dearest: str = "", **fields: Any) -> None:
    """Apply the agents of the chain, who can calculate, too.

    Args:
        definer: Applies them.
        dearest: The name of one with a long prompt, each of whose calls costs more than the calls of the others.
        fields: Further fields of each definition.
    """
    below: tuple[str, ...] = ()
    for name in reversed(CHAIN):
        prompt = "Read. " * 500 if name == dearest else f"You are the {name}."
        offered = [{"builtin": "calculator"}, *tools(*below)]
        await definer.apply(name, system_prompt=prompt, tools=offered, **fields)
        below = (name,)


def path_at(depth: int) -> str:
    """Return the path of the first agent of the chain at a depth, if it is reached at once; empty: the turn's own."""
    return "/".join(f"{name}#{number}" for number, name in enumerate(CHAIN[1 : depth + 1], 1))


def paths(turn: Turn, kind: str) -> list[str]:
    """Return the paths of a turn's events of a kind."""
    return [each.agent_path for each in turn.responses if each.HasField(kind)]


def results(turn: Turn, path: str = "") -> list[tuple[bool, str]]:
    """Return whether each tool call of an agent succeeded, and its output."""
    found = [each for each in turn.responses if each.HasField("tool_call_finished") and each.agent_path == path]
    done = session_pb2.TOOL_CALL_STATUS_SUCCESS
    return [(each.tool_call_finished.status == done, each.tool_call_finished.output) for each in found]


def total(entries: Sequence[ModelCall]) -> Decimal:
    """Return the sum of what entries cost."""
    return sum((each.cost or Decimal(0) for each in entries), Decimal(0))


def stop_of(turn: Turn) -> str:
    """Return the name of the reason why a turn ended."""
    return turn_pb2.StopReason.Name(turn.finished.stop_reason)


def assert_never_above(limit: Decimal, entries: Sequence[ModelCall]) -> None:
    """Check of each call that what was spent or reserved before it, and what it may cost, are within a limit."""
    sent = [each for each in entries if each.state is not CallState.VOID]
    for call in sent:
        before = [each for each in sent if each.number < call.number]
        held = [
            each.cost if each.settle_time is not None and each.settle_time <= call.start_time else each.upper_bound
            for each in before
        ]
        assert sum((each or Decimal(0) for each in [*held, call.upper_bound]), Decimal(0)) <= limit


async def settled(service: Service, calls: int) -> list[ModelCall]:
    """Wait until all calls of the session have their cost; return the entries."""

    def found() -> list[ModelCall]:
        entries = service.entries("talk")
        open_calls = [each for each in entries if each.state is CallState.PENDING]
        return [] if open_calls or len(entries) < calls else entries

    return await soon(found)

"""The server's tools without a turn: notes, the report of costs, and the limits of every call."""

import asyncio
import json
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from strands import tool
from strands.agent.state import AgentState

from godoty_service.agents.tools.limits import LimitedTool
from godoty_service.agents.tools.notebook import MAX_BYTES, MAX_NOTES, MAX_TEXT, STATE_KEY, notebook
from godoty_service.agents.tools.outcomes import ToolOutcome, ToolRefused, ToolTimedOut, outcome_of
from godoty_service.agents.tools.registry import built_in_tools
from godoty_service.agents.tools.session_cost import cost_report
from godoty_service.clock import utc_now
from godoty_service.ledger.totals import SessionTotals, Totals


async def call(called: Any, state: dict[str, Any] | None = None, **given: Any) -> tuple[bool, str]:
    """Return whether a call succeeded, and what the model sees."""
    use: Any = {"toolUseId": "1", "name": called.tool_name, "input": given}
    (event,) = [each async for each in called.stream(use, state or {})]
    (content,) = event["tool_result"]["content"]
    return event["tool_result"]["status"] == "success", content["text"]


class Notes:
    """The tool for notes, with the state of a session."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = AgentState(state or {})

    async def __call__(self, action: str, name: str = "", text: str = "") -> tuple[bool, str]:
        """Call it."""
        agent = SimpleNamespace(state=self.state)
        return await call(notebook, {"agent": agent}, action=action, name=name, text=text)


async def test_notes_are_written_read_listed_and_deleted() -> None:
    """They are one value of the state, and nothing else of it changes."""
    notes = Notes({"godoty_metrics": {"total_cost": "1"}})

    assert await notes("list") == (True, "[]")
    assert (await notes("write", "godoty_metrics", "a"))[0]
    assert (await notes("write", " plan ", "b"))[0]
    assert (await notes("write", "plan", "c"))[0]
    assert await notes("read", "plan") == (True, "c")
    listed = json.loads((await notes("list"))[1])
    assert listed == [{"name": "godoty_metrics", "characters": 1}, {"name": "plan", "characters": 1}]
    assert (await notes("delete", "godoty_metrics"))[0]

    assert notes.state.get() == {"godoty_metrics": {"total_cost": "1"}, STATE_KEY: {"plan": "c"}}


@pytest.mark.parametrize(
    ("action", "name", "text"),
    [
        ("read", "none", ""),
        ("delete", "none", ""),
        ("write", "", "a"),
        ("write", "a\nb", "a"),
        ("write", "a" * 65, "a"),
        ("write", "a", ""),
        ("write", "a", "a" * (MAX_TEXT + 1)),
        ("shred", "kept", "a"),
    ],
)
async def test_call_that_makes_no_sense_changes_no_note(action: str, name: str, text: str) -> None:
    """The model sees a short error."""
    notes = Notes({STATE_KEY: {"kept": "text"}})

    succeeded, shown = await notes(action, name, text)

    assert not succeeded
    assert len(shown) < 1_000
    assert notes.state.get() == {STATE_KEY: {"kept": "text"}}


async def test_notes_have_a_number_and_a_size_together() -> None:
    """A note can be replaced when there are as many as there may be."""
    notes = Notes()
    for number in range(MAX_NOTES):
        assert (await notes("write", f"n{number}", "a"))[0]
    assert not (await notes("write", "one more", "a"))[0]
    assert (await notes("write", "n0", "b"))[0]

    sizes = [(await notes("write", f"n{number}", "\u20ac" * MAX_TEXT))[0] for number in range(MAX_NOTES)]

    assert sizes.count(True) == 2
    assert len(json.dumps(notes.state.get(STATE_KEY))) <= MAX_BYTES


async def test_note_has_text_that_can_be_stored() -> None:
    """Half a pair of surrogates is replaced: neither UTF-8 nor the provider can take it."""
    notes = Notes()

    assert (await notes("write", "\ud800", "a\ud800"))[0]

    assert notes.state.get(STATE_KEY) == {"?": "a?"}


def test_costs_are_exact_and_name_what_is_missing() -> None:
    """Pending and unresolved calls are counted apart from the total."""
    totals = Totals(cost=Decimal("0.00000001050"), turns=2, model_calls=3)

    whole = cost_report(SessionTotals(totals=totals))
    assert whole == {
        "total_cost": "0.0000000105",
        "currency": "USD",
        "total_tokens": 0,
        "turns": 2,
        "model_calls": 3,
        "pending_calls": 0,
        "unresolved_calls": 0,
    }

    lacking = replace(totals, unresolved_calls=1, unresolved_bound=Decimal("0.50"))
    report = cost_report(SessionTotals(totals=lacking, open=(4, 5), open_turns=("a", "a")))
    assert report == whole | {
        "model_calls": 5,
        "pending_calls": 2,
        "unresolved_calls": 1,
        "unresolved_cost_at_most": "0.5",
        "notes": [
            "The cost of 2 model calls is pending: it is not in the total yet.",
            "The cost of 1 model call is unknown: it is not in the total.",
        ],
    }
    unbounded = replace(lacking, unbounded_calls=1)
    assert cost_report(SessionTotals(totals=unbounded))["unresolved_cost_at_most"] is None


def test_every_tool_has_limits() -> None:
    """Of time and of output; none is registered without."""
    tools = built_in_tools(clock=utc_now)

    assert sorted(tools) == ["calculator", "current_time", "notebook", "session_cost"]
    assert all(isinstance(each, LimitedTool) for each in tools.values())


async def test_call_that_takes_too_long_is_cancelled() -> None:
    """The model sees an error with the limit; a call that is cancelled from outside stays cancelled."""
    ended: list[str] = []

    @tool(name="wait")
    async def wait() -> str:
        """Wait."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("wait")
        return ""

    text = "The tool did not end within 0.01 s; the call was cancelled."
    assert await call(LimitedTool(wait, seconds=0.01)) == (False, text)
    assert ended == ["wait"]

    running = asyncio.create_task(call(LimitedTool(wait)))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize(
    ("succeeded", "error", "cancelled", "outcome"),
    [
        (True, None, False, ToolOutcome.OK),
        (False, None, False, ToolOutcome.ERROR),
        (False, ValueError(), False, ToolOutcome.ERROR),
        (False, ToolTimedOut(), False, ToolOutcome.TIMEOUT),
        (False, ToolRefused(), False, ToolOutcome.REFUSED),
        (False, None, True, ToolOutcome.REFUSED),
    ],
)
def test_outcomes_of_calls(
    succeeded: bool,  # noqa: FBT001 - a case
    error: BaseException | None,
    cancelled: bool,  # noqa: FBT001 - a case
    outcome: ToolOutcome,
) -> None:
    """By the result, and by the exception that comes with it."""
    assert outcome_of(succeeded=succeeded, error=error, cancelled=cancelled) is outcome


async def test_error_of_a_tool_is_a_result() -> None:
    """A time limit of the tool's own as well."""

    @tool(name="fail")
    async def fail() -> str:
        """Fail."""
        raise TimeoutError("own")

    assert await call(LimitedTool(fail)) == (False, "Error: TimeoutError - own")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("abcde", "abcde"),
        ("abcdef", "abcde\n[The result is cut: 1 more characters are left out.]"),
        ("€€", "€\n[The result is cut: 1 more characters are left out.]"),
        ("\ud800" * 6, "?????\n[The result is cut: 1 more characters are left out.]"),
    ],
)
async def test_result_is_cut(text: str, shown: str) -> None:
    """After whole characters, with a note."""

    @tool(name="say")
    async def say() -> str:
        """Return a long text."""
        return text

    succeeded, found = await call(LimitedTool(say, max_bytes=5))

    assert succeeded
    assert found.encode("utf-8", "replace").decode() == shown

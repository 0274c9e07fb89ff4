"""The chat on a terminal, driven by what its screen shows."""

from __future__ import annotations

import re
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest
from godoty import AgentDefinition, AgentTool, AsyncGodoty
from godoty.types import ToolApproval
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.tenancy.auth import Scope
from tests.clients.cutting_proxy import CuttingProxy
from tests.clients.pseudo_terminal import PseudoTerminal
from tests.support.leases import LONG_LEASE_ENVIRONMENT, end_leases
from tests.support.service import format_amount, soon
from tests.support.waiting import identified

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from godoty.v1 import agent_service_pb2 as pb

    from tests.clients.conftest import Context, FakeAgentService
    from tests.conftest import StartProcess
    from tests.support.service import Service

    Open = Callable[..., AbstractAsyncContextManager[PseudoTerminal]]

ENTER, ESCAPE, CTRL_C, CTRL_D, DOWN = "\r", "\x1b", "\x03", "\x04", "\x1b[B"
PATIENT = ("--grace", "600")  # a busy machine is slow
SEQUENCES = re.compile(rb"\x1b(?:\[[0-9;?]*[A-Za-z]|[=>78])")


@pytest.fixture
def open_chat(chat_environment: dict[str, str]) -> Open:
    """Opens the chat on a terminal of a number of columns."""

    def start(
        service: Service | FakeAgentService, *options: str, target: str = "", columns: int = 80, rows: int = 40
    ) -> AbstractAsyncContextManager[PseudoTerminal]:
        environment = chat_environment | {
            "GODOTY_LISTEN": target or service.target,
            "GODOTY_API_KEY": service.api_key,
            "TERM": "xterm-256color",
        }
        del environment["NO_COLOR"]
        return PseudoTerminal(options, environment, columns=columns, rows=rows)

    return start


async def apply_asking_agent(service: Service, issue: Callable[..., str]) -> None:
    """Apply an agent whose calculator needs approval."""
    approval = ToolApproval(why="It is expensive.")
    definition = AgentDefinition(
        name="careful", system_prompt="Be brief.", tools=(AgentTool(builtin="calculator", approval=approval),)
    )
    async with AsyncGodoty(service.target, issue(service, scopes=frozenset({Scope.AGENTS}))) as client:
        await client.agents.apply(definition)


def calculation(expression: str) -> str:
    """Return a message upon which the model calls the calculator."""
    return f'@sandbox tool-loop calls=2 tool=calculator input=\'{{"expression": "{expression}"}}\''


@pytest.mark.parametrize("columns", [40, 200])
async def test_conversation(
    columns: int, service: Service, open_chat: Open, issue: Callable[..., str], session_id: str
) -> None:
    """History and cost before typing, a tool call, a paste that is one turn, Ctrl-C, and leaving."""
    async with AsyncGodoty(service.target, service.api_key) as client:
        await client.converse("@sandbox plain text=hello", session=session_id).wait()
        async with open_chat(service, "--session", session_id, columns=columns) as chat:
            await chat.is_ready()
            await chat.sees("> @sandbox plain text=hello", "hello", "so far: $", "1 turn, ")

            chat.type(calculation("6 * 7") + ENTER)
            await chat.sees("✓ calculator", "tokens | openai/gpt-4o-mini via ")
            await chat.is_ready()
            assert sum("✓ calculator" in line for line in chat.lines) == 1
            await chat.shows("2 turns", "via", "first token")

            pasted = [f"line {number}" for number in range(1, 21)]
            chat.paste("".join(f"{line}\n" for line in pasted))
            await chat.shows("line 20")
            chat.type(ENTER)
            await chat.sees("> line 1 line 2", "line 19 line 20", "3 turns")
            await chat.is_ready()
            messages = [message async for message in client.sessions.messages(session_id)]
            said = [block.text for message in messages for block in message.content if block.text]
            assert "\n".join(pasted) in said

            chat.type(f"@sandbox plain tokens=9 hold_after=3 hold={session_id}{ENTER}")
            await chat.sees("t0 t1 t2")
            chat.type(CTRL_C)
            await chat.sees("Cancelled. turn: ")
            await soon(lambda: (service.session(session_id) or {"lease": ""})["lease"] is None)
            await chat.shows("Ctrl-C again leaves")
            chat.type(CTRL_C)
            assert await chat.leaves() == 0


async def test_approvals_are_asked_in_place(
    service: Service, open_chat: Open, issue: Callable[..., str], session_id: str
) -> None:
    """Approved, with a changed input, denied with a reason, and left for later: asked again at the next start."""
    await apply_asking_agent(service, issue)
    async with open_chat(service, "--session", session_id, "--agent", "careful", columns=40) as chat:
        await chat.is_ready()
        chat.type(calculation("6 * 7") + ENTER)
        await chat.shows("calculator needs your approval: It is expensive.", '{"expression": "6 * 7"}', "[a] approve")
        chat.type("a")
        await chat.sees("✓ calculator", "42")
        await chat.is_ready()

        chat.type(calculation("1 + 1") + ENTER)
        await chat.shows('{"expression": "1 + 1"}', "[c] change the input")
        chat.type("c")
        await chat.shows("input>")
        chat.type("\x15" + '{"expression": "100 + 1"}' + ENTER)
        await chat.sees("101")
        await chat.is_ready()

        chat.type(calculation("2 + 2") + ENTER)
        await chat.shows('{"expression": "2 + 2"}', "[d] deny")
        chat.type("d")
        await chat.shows("why>")
        chat.type("not today" + ENTER)
        await chat.sees("denied: not today")
        await chat.is_ready()

        chat.type(calculation("3 + 3") + ENTER)
        await chat.shows('{"expression": "3 + 3"}', "[l] later")
        chat.type("l")
        await chat.sees("The session waits for an answer to calculator")
        await chat.is_ready()
        chat.type(CTRL_D)
        assert await chat.leaves() == 0

    async with open_chat(service, "--session", session_id) as chat:
        await chat.shows('{"expression": "3 + 3"}', "[a] approve")
        chat.type("a")
        await chat.sees("✓ calculator", "→ 6, ", "approved")
        await chat.is_ready()


async def test_answer_goes_on_after_a_lost_connection(service: Service, open_chat: Open, session_id: str) -> None:
    """What is lost is shown, and so is that it is back; the text is whole, and charged once."""
    async with (
        CuttingProxy(service.target) as proxy,
        open_chat(service, "--session", session_id, *PATIENT, target=proxy.address) as chat,
    ):
        await chat.is_ready()
        chat.type(f"@sandbox plain tokens=6 hold_after=3 hold={session_id}{ENTER}")
        await chat.sees("t0 t1 t2")
        proxy.refuses = True
        proxy.cut()
        await chat.shows("the connection is lost: resuming")
        proxy.refuses = False
        service.backends.allow(session_id)
        await chat.sees("t0 t1 t2 t3 t4 t5", "the connection was lost 1 time, and made again", "turn: $")
        await chat.is_ready()

        words = re.findall(r"\bt\d\b", chat.text)
        assert words == ["t0", "t1", "t2", "t3", "t4", "t5"]
        assert len(service.entries(session_id)) == len(service.invoice(session_id)) == 1


async def test_killed_server_leaves_an_interrupted_answer(
    serve_process: StartProcess, open_chat: Open, session_id: str
) -> None:
    """What was shown stays, marked as interrupted, and its cost counts; the next message goes on."""
    process, service = await serve_process(**LONG_LEASE_ENVIRONMENT)
    async with open_chat(service, "--session", session_id, *PATIENT) as chat:
        await chat.is_ready()
        chat.type(f"@sandbox plain tokens=9 hold_after=3 hold={session_id}{ENTER}")
        await chat.sees("t0 t1 t2")
        await identified(service, session_id)
        await process.kill()
        end_leases(service.database, process.replica_id)
        await chat.shows("the connection is lost: resuming")
        await process.start()
        await chat.sees("t0 t1 t2", "interrupted: the server that ran the turn stopped", "turn: $")
        await chat.is_ready()

        chat.type("@sandbox plain text=again" + ENTER)
        await chat.sees("again", "2 turns, ")
        await chat.is_ready()
        await soon(lambda: all(entry.cost is not None for entry in service.entries(session_id)))
        assert len(service.entries(session_id)) == len(service.invoice(session_id)) == 2
        chat.type("/cost" + ENTER)
        await chat.sees(f"{session_id}: ${format_amount(service.invoiced(session_id))}, 2 turns", "By model", "Latency")


async def test_pickers_show_costs_and_prices(service: Service, open_chat: Open, session_id: str) -> None:
    """What is typed filters; Enter picks, and Escape does not."""
    async with AsyncGodoty(service.target, service.api_key) as client:
        await client.converse("@sandbox plain text=first", session="one").wait()
        await client.converse("@sandbox plain text=second", session="two").wait()
    async with open_chat(service, "--session", session_id) as chat:
        await chat.is_ready()
        chat.type("/sessions" + ENTER)
        await chat.shows("(2 of 2)", "> two $0.0")
        chat.type(DOWN)
        await chat.shows("> one $0.0")
        chat.type(ENTER)
        await chat.sees("> @sandbox plain text=first", "so far: $0.0")
        await chat.is_ready()

        chat.type("/models" + ENTER)
        await chat.shows("USD per 1M tokens", "input output context")
        chat.type("gpt-4o-mini-2")
        await chat.shows("> openai/gpt-4o-mini-2024-07-18 $0.15 $0.6")
        chat.type(ENTER)
        await chat.sees("model: openai/gpt-4o-mini-2024-07-18")
        await chat.is_ready()

        chat.type("/agent" + ENTER)
        await chat.shows("> assistant")
        chat.type(ESCAPE)
        await chat.is_ready()
        chat.type("/edit" + ENTER)
        await chat.shows("edit> @sandbox plain text=first")
        chat.type("-changed" + ENTER)
        await chat.sees("forked from one before message 1", "> @sandbox plain text=first-changed", "first-changed")
        await chat.is_ready()


async def test_no_sequence_of_a_model_reaches_the_terminal(open_chat: Open, fake_service: FakeAgentService) -> None:
    """Not of its text, its reasoning, its tools and their outputs; a character by character answer is one block."""
    attack = "\x1b]0;owned\x07\x1b[2J\x9b5n\x1bP1$r\x1b\\"

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb.TurnEvent]:
        begun = turn_pb.TurnStarted(session_id=request.session_id)
        yield turn_pb.TurnEvent(sequence=1, turn_id="turn", turn_started=begun)
        yield turn_pb.TurnEvent(sequence=2, reasoning_delta=turn_pb.ReasoningDelta(text=attack))
        started = turn_pb.ToolCallStarted(tool_call_id="1", name=f"tool{attack}", input_json=f'"{attack}"')
        yield turn_pb.TurnEvent(sequence=3, tool_call_started=started)
        finished = turn_pb.ToolCallFinished(tool_call_id="1", output=f"{attack}output")
        yield turn_pb.TurnEvent(sequence=4, tool_call_finished=finished)
        for number, character in enumerate(f"{attack} **an** &#27;[2J answer"):
            yield turn_pb.TurnEvent(sequence=5 + number, text_delta=turn_pb.TextDelta(text=character))
        yield turn_pb.TurnEvent(sequence=1000, turn_finished=turn_pb.TurnFinished())

    fake_service.script = script
    async with open_chat(fake_service, "--reasoning") as chat:
        await chat.is_ready()
        chat.type(f"go{ENTER}")
        await chat.sees("✓ tool", "output", "an ", "answer", "turn: unknown")
        await chat.is_ready()
        chat.type(f"/details{ENTER}")
        await chat.sees("Model calls of turn")

        sequences = set(SEQUENCES.findall(chat.output))
        rest = SEQUENCES.sub(b"", chat.output)
        assert b"\x1b" not in rest
        assert b"\x07" not in rest
        assert "\x9b" not in chat.output.decode()
        assert b"\x1b[2J" not in sequences
        assert b"\x1b[5n" not in sequences

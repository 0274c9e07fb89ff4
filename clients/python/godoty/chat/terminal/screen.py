"""Shows the chat on a terminal: what is complete scrolls away, and the block that is being written is drawn anew."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from godoty.chat.formatting import format_totals, printable, short, visible
from godoty.chat.status import Status
from godoty.chat.terminal import view
from godoty.chat.terminal.blocks import Block, BlockSplitter
from godoty.chat.terminal.picker import Picker
from godoty.types import ActionApproval, ActionDenial, ActionKind, ActionResult, ClientToolOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta

    from rich.console import RenderableType

    from godoty.chat.terminal.input import Input
    from godoty.chat.turn import TurnRecord
    from godoty.types import Action

_INTERVAL = 0.08  # seconds between two drawings of what changes
_SLICE = 0.03  # seconds of rendering after which other work is done
_MIN_LIVE_ROWS = 3
_LOWER_ROWS = 8  # rows that are left to the lower part
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MAX_ACTION_INPUT = 4000  # characters of an action's input that are shown
_MAX_WHY = 1000  # characters; the contract's


class TerminalScreen:
    """A screen with a person before it."""

    interactive = True

    def __init__(self, lower: Input, status: Status, painter: view.Painter | None = None) -> None:
        self._input = lower
        self._status = status
        self._painter = painter or view.Painter()
        self._queue: deque[tuple[str, RenderableType]] = deque()
        self._splitter = BlockSplitter()
        self._style: Callable[[Block], RenderableType] = view.answer
        self._kind = ""  # of what was written last
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    # What is shown

    def stream(self, text: str, *, reasoning: bool = False) -> None:
        """Show a part of an answer, or of the model's reasoning."""
        self._style = view.reasoning if reasoning else view.answer
        self._put_blocks(self._splitter.feed(printable(text)))
        self._wake()

    def end_answer(self) -> None:
        """Write what is left of the answer."""
        self._put_blocks(self._splitter.end())

    def activity(self, text: str) -> None:
        """Show what a turn does: the status has it."""
        del text
        self._wake()

    def line(self, text: str, *, style: str = "") -> None:
        """Write a line."""
        self._put("line", view.line(text, style))

    def message(self, text: str) -> None:
        """Write a message of the user."""
        self._put("message", view.message(text))

    def tool(self, name: str, arguments: str, output: str, *, failed: bool, duration: timedelta | None = None) -> None:
        """Write a tool call as one line."""
        self._put("tool", view.ToolLine(name, arguments, output, failed=failed, duration=duration))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table."""
        self._put("table", view.Rows(title, columns, list(rows)))

    def error(self, text: str) -> None:
        """Write an error."""
        self._put("line", view.line(f"Error: {text}", "bold red"))

    def turn(self, record: TurnRecord) -> None:
        """Write what the turn has cost."""
        if record.finished is not None:
            turn = f"turn: {format_totals(record.finished.turn_totals, turns=False)}"
            self._put("end", view.line(" | ".join([turn, *record.served]), "dim"))

    # What is asked

    async def pick(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int | None:
        """Return the index of the row that the user picks."""
        return await self._input.pick(Picker(title, columns, rows))

    async def edit(self, label: str, text: str) -> str | None:
        """Return a text as the user has edited it."""
        return await self._input.text(label, printable(text))

    async def decide(self, action: Action) -> ActionResult | None:
        """Return the user's answer to an action."""
        why = f": {action.reason}" if action.reason else ""
        if action.kind is ActionKind.CLIENT_TOOL:
            title = f"{action.name} is a tool of yours: run it, and write its result{why}"
        else:
            title = f"{action.name} needs your approval{why}"
        self._put("action", view.action(title, _excerpt(visible(action.input_json))))
        await self.drain()
        while True:
            if action.kind is ActionKind.CLIENT_TOOL:
                keys = {"r": "result", "d": "deny", "l": "later"}
            else:
                keys = {"a": "approve", "c": "change the input", "d": "deny", "l": "later"}
            key = await self._input.key(f"{short(action.name, 32)}?", keys)
            if key in {None, "l"}:
                return None
            result = await self._result(action, key or "")
            if result is not None:
                self.line(view.decision(result), style="dim")
                return result

    async def _result(self, action: Action, key: str) -> ActionResult | None:
        """Return the answer that a key begins; None: the user goes back."""
        approve = deny = output = None
        if key == "a":
            approve = ActionApproval()
        elif key == "c":
            approve = await self._changed_input(action)
        elif key == "r":
            text = await self._input.text("result", "")
            output = ClientToolOutput(output_text=text) if text is not None else None
        else:
            why = await self._input.text("why", "")
            deny = ActionDenial(why=" ".join(why.split())[:_MAX_WHY]) if why is not None else None
        if approve is None and deny is None and output is None:
            return None
        return ActionResult(action_id=action.action_id, approve=approve, deny=deny, output=output)

    async def _changed_input(self, action: Action) -> ActionApproval | None:
        changed = await self._input.text("input", visible(action.input_json))
        if changed is None:
            return None
        if not _is_object(changed):
            self.error("the input is no JSON object")
            return None
        return ActionApproval(input_json=changed)

    # How it is written

    async def run(self) -> None:
        """Write what there is, until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _INTERVAL if self._status.running else None)
            self._changed.clear()
            while self._queue:
                self._write_slice()
                await asyncio.sleep(0)
            self._draw()
            if not self._changed.is_set():
                self._idle.set()
            await asyncio.sleep(_INTERVAL)

    async def drain(self) -> None:
        """Wait until all is written."""
        self._wake()
        await self._idle.wait()

    def flush(self) -> None:
        """Write all that there is, at once."""
        self.end_answer()
        while self._queue:
            self._write_slice()
        self._input.show("")

    def _put(self, kind: str, renderable: RenderableType) -> None:
        self.end_answer()
        self._queue.append((kind, renderable))
        self._wake()

    def _put_blocks(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self._queue.append(("continued" if block.continues else "block", self._style(block)))
            self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._changed.set()

    def _write_slice(self) -> None:
        """Write a part of the queue, for a time that is not noticed."""
        width, _ = self._input.size
        until = time.monotonic() + _SLICE
        written: list[str] = []
        while self._queue and time.monotonic() < until:
            kind, renderable = self._queue.popleft()
            text = self._painter.paint(renderable, width)
            if text:
                written.append(self._gap(kind) + text)
                self._kind = kind
        if written:
            self._input.write("\n".join(written))

    def _gap(self, kind: str) -> str:
        """Return an empty line, or nothing where what is written belongs to what was before it."""
        together = {("line", "line"), ("tool", "tool"), ("line", "end"), ("end", "line")}
        return "" if not self._kind or kind == "continued" or (self._kind, kind) in together else "\n"

    def _draw(self) -> None:
        """Draw the block that is being written, and what the turn does."""
        width, rows = self._input.size
        lines: list[str] = []
        rest = self._splitter.rest
        if rest.text.strip():
            painted = self._gap("continued" if rest.continues else "block") + self._painter.paint(
                self._style(rest), width
            )
            lines = painted.split("\n")[-max(rows - _LOWER_ROWS, _MIN_LIVE_ROWS) :]
        if self._status.running:
            mark = _SPINNER[int(time.monotonic() * 10) % len(_SPINNER)]
            activity = view.line(short(f"{mark} {self._status.progress()}", width), "dim")
            lines += ["", self._painter.paint(activity, width)]
        self._input.show("\n".join(lines))
        self._input.refresh()


def _excerpt(text: str) -> str:
    """Return a text as it is: what is approved must be what is shown."""
    return (
        text if len(text) <= _MAX_ACTION_INPUT else f"{text[:_MAX_ACTION_INPUT]}\n… {len(text):,} characters in all …"
    )


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False

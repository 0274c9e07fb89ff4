"""The lower part of the terminal: what is being answered, questions, the line in which the user writes, the status.

It is one application of prompt_toolkit, which stays while the chat runs; what is written above it scrolls away as
usual. So the user may write while an answer arrives, and a paste is one text at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI, StyleAndTextTuples
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    VerticalAlign,
    Window,
)
from prompt_toolkit.output import create_output
from prompt_toolkit.styles import Style

from godoty.chat.terminal.view import short_line

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.input import Input as KeyInput
    from prompt_toolkit.output import Output

    from godoty.chat.terminal.picker import Picker

_INPUT_ROWS = 10
_PICKER_ROWS = 14
_HINTS = 5
_STYLE = Style.from_dict(
    {
        "rule": "ansibrightblack",
        "prompt": "ansigreen bold",
        "status": "ansibrightblack",
        "hint": "ansiyellow",
        "selected": "reverse",
        "title": "bold",
    }
)
LEAVE_HINT = "Ctrl-C again leaves"
BUSY_HINT = "the turn is running: Ctrl-C cancels it"


@dataclass
class _Question:
    """What the user is asked.

    Attributes:
        answer: Their answer. None: none.
        label: What stands before the line. Empty: it is the next message.
        keys: The keys that are answers, instead of a text.
        picker: The rows of which one is the answer, instead of a text.
    """

    answer: asyncio.Future[Any]
    label: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    picker: Picker | None = None


class Input:
    """Reads what the user writes, and shows what is below it.

    Args:
        status: Returns the lines of the status for a width.
        interrupt: Cancels what runs.
        leave: Ends the chat.
        hints: Returns the commands that begin with a text, each with what it does.
        keys: Where key presses come from. None: standard input.
        output: The terminal. None: standard output.
    """

    def __init__(
        self,
        *,
        status: Callable[[int], list[str]],
        interrupt: Callable[[], None],
        leave: Callable[[], None],
        hints: Callable[[str], Sequence[tuple[str, str]]],
        keys: KeyInput | None = None,
        output: Output | None = None,
    ) -> None:
        self._status = status
        self._interrupt = interrupt
        self._leave = leave
        self._question: _Question | None = None
        self._live = ANSI("")
        self._live_rows = 0
        self._hint = ""
        self._hints = hints
        self._buffer = Buffer(
            history=InMemoryHistory(),
            multiline=True,
            completer=_CommandCompleter(hints),
            read_only=Condition(lambda: self._question is not None and bool(self._question.keys)),
        )
        self._buffer.on_text_changed += lambda _: self._text_changed()
        output = output or create_output()
        if hasattr(output, "enable_cpr"):
            output.enable_cpr = False  # where the cursor is does not matter
        self._application: Application[None] = Application(
            layout=self._layout(),
            key_bindings=self._bindings(),
            style=_STYLE,
            input=keys,
            output=output,
            erase_when_done=True,
        )
        self._application.ttimeoutlen = 0.1  # seconds after which Escape is a key by itself

    @property
    def size(self) -> tuple[int, int]:
        """The columns and rows of the terminal."""
        size = self._application.output.get_size()
        return max(size.columns, 1), max(size.rows, 1)

    async def run(self) -> None:
        """Show the lower part, until `close`."""
        await self._application.run_async(set_exception_handler=False)

    def close(self) -> None:
        """Remove the lower part."""
        if self._application.is_running:
            self._application.exit()

    def write(self, text: str) -> None:
        """Write lines above, in one step: the lower part is drawn anew below them."""
        output = self._application.output
        self._application.renderer.erase()
        output.write_raw(text.replace("\n", "\r\n") + "\r\n")
        output.flush()
        self._application._redraw()  # noqa: SLF001 - at once: meanwhile a paste would have no marks around it

    def show(self, live: str) -> None:
        """Show lines that change until they are written."""
        if live != self._live.value:
            self._live, self._live_rows = ANSI(live), live.count("\n") + 1 if live else 0
            self._application.invalidate()

    def refresh(self) -> None:
        """Show the present status."""
        self._application.invalidate()

    def remember(self, messages: Iterable[str]) -> None:
        """Offer earlier messages by the arrow keys."""
        for each in messages:
            self._buffer.history.append_string(each)

    async def message(self, *, leaves: bool = False) -> str | None:
        """Return the user's next message; None: they leave.

        Args:
            leaves: Ctrl-C was pressed once: the next time it ends the chat.
        """
        text: str | None = await self._ask(_Question(_future()), LEAVE_HINT if leaves else "")
        if text is not None and text.strip():
            self._buffer.history.append_string(text)
        return text

    async def text(self, label: str, initial: str) -> str | None:
        """Return a text that the user writes beginning with another one; None: they do not."""
        draft = self._buffer.document
        self._buffer.reset(Document(initial))
        try:
            text: str | None = await self._ask(_Question(_future(), label=label))
        finally:
            self._buffer.reset(draft)
        return text

    async def key(self, label: str, keys: Mapping[str, str]) -> str | None:
        """Return the key that the user presses, of those that have a meaning; None: they do not."""
        key: str | None = await self._ask(_Question(_future(), label=label, keys=keys))
        return key

    async def pick(self, picker: Picker) -> int | None:
        """Return the index of the row that the user picks; None: they do not."""
        draft = self._buffer.document
        self._buffer.reset()
        try:
            row: int | None = await self._ask(_Question(_future(), label="filter", picker=picker))
        finally:
            self._buffer.reset(draft)
        return row

    async def _ask(self, question: _Question, hint: str = "") -> Any:
        self._question, self._hint = question, hint
        self._application.invalidate()
        try:
            return await question.answer
        finally:
            self._question = None
            self._application.invalidate()

    def _answer(self, answer: object) -> None:
        if self._question is not None and not self._question.answer.done():
            self._question.answer.set_result(answer)

    def _text_changed(self) -> None:
        self._hint = ""
        if self._question is not None and self._question.picker is not None:
            self._question.picker.filter(self._buffer.text)

    # Keys

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        picks = Condition(lambda: self._question is not None and self._question.picker is not None)
        chooses = Condition(lambda: self._question is not None and bool(self._question.keys))
        asks = Condition(lambda: self._question is not None and bool(self._question.label))
        empty = Condition(lambda: not self._buffer.text)
        bindings.add("enter", filter=~chooses)(lambda _: self._enter())
        bindings.add("escape", "enter")(lambda _: self._buffer.insert_text("\n"))
        bindings.add("c-j")(lambda _: self._buffer.insert_text("\n"))
        bindings.add("c-c")(lambda _: self._press_interrupt())
        bindings.add(Keys.SIGINT)(lambda _: self._press_interrupt())
        bindings.add("c-d", filter=empty | chooses)(lambda _: self._leave())
        bindings.add("c-z")(lambda event: event.app.suspend_to_background())
        bindings.add("escape", filter=asks, eager=True)(lambda _: self._answer(None))
        for key, steps in (("up", -1), ("down", 1), ("pageup", -10), ("pagedown", 10)):
            bindings.add(key, filter=picks)(lambda _, steps=steps: self._move(steps))
        bindings.add(Keys.Any, filter=chooses)(self._choose)
        bindings.add(Keys.BracketedPaste, filter=chooses)(lambda _: None)
        bindings.add("tab", filter=~picks & ~chooses)(lambda _: self._complete())
        return bindings

    def _enter(self) -> None:
        question = self._question
        if question is None:
            self._hint = BUSY_HINT
        elif question.picker is not None:
            self._answer(question.picker.selected)
        elif question.label or self._buffer.text.strip():
            text = self._buffer.text
            if not question.label:
                self._buffer.reset()
            self._answer(text)

    def _press_interrupt(self) -> None:
        if self._question is None:
            self._interrupt()
        elif self._question.label:
            self._answer(None)
        elif self._buffer.text:
            self._buffer.reset()
        elif self._hint == LEAVE_HINT:
            self._leave()
        else:
            self._hint = LEAVE_HINT

    def _move(self, steps: int) -> None:
        if self._question is not None and self._question.picker is not None:
            self._question.picker.move(steps)

    def _choose(self, event: KeyPressEvent) -> None:
        key = event.data.lower()
        if self._question is not None and key in self._question.keys:
            self._answer(key)

    def _complete(self) -> None:
        if self._buffer.complete_state:
            self._buffer.complete_next()
        else:
            self._buffer.start_completion(insert_common_part=True)

    # Layout

    def _layout(self) -> Layout:
        shows_live = Condition(lambda: self._live_rows > 0)
        picks = Condition(lambda: self._question is not None and self._question.picker is not None)
        chooses = Condition(lambda: self._question is not None and bool(self._question.keys))
        line = Window(
            BufferControl(self._buffer, include_default_input_processors=True),
            get_line_prefix=self._prefix,
            wrap_lines=True,
            height=Dimension(min=1, max=_INPUT_ROWS),
            dont_extend_height=True,
        )
        return Layout(
            HSplit(
                [
                    ConditionalContainer(_rows(lambda: self._live), shows_live),
                    _rows(self._rule),
                    ConditionalContainer(_rows(self._picker), picks),
                    ConditionalContainer(_rows(self._choices), chooses),
                    ConditionalContainer(line, ~chooses),
                    _rows(self._lower),
                ],
                align=VerticalAlign.TOP,
            ),
            focused_element=line,
        )

    def _rule(self) -> StyleAndTextTuples:
        return [("class:rule", "─" * self.size[0])]

    def _prefix(self, line: int, wraps: int) -> StyleAndTextTuples:
        question = self._question
        if line or wraps:
            return [("", "  ")]
        if question is None:  # what is written waits for the end of the turn
            return [("class:status", "· ")]
        return [("class:prompt", f"{question.label}> ")]

    def _picker(self) -> StyleAndTextTuples:
        question = self._question
        if question is None or question.picker is None:
            return []
        width, rows = self.size
        lines = question.picker.lines(width, max(min(_PICKER_ROWS, rows - 4), 3))
        styled: StyleAndTextTuples = []
        for number, (selected, text) in enumerate(lines):
            style = "class:selected" if selected else "class:title" if number == 0 else ""
            styled.append((style, text if number == len(lines) - 1 else text + "\n"))
        return styled

    def _choices(self) -> StyleAndTextTuples:
        question = self._question
        if question is None:
            return []
        named = ", ".join(f"[{key}] {meaning}" for key, meaning in question.keys.items())
        return [("class:prompt", f"{question.label} "), ("", named)]

    def _lower(self) -> StyleAndTextTuples:
        width, _ = self.size
        shown: StyleAndTextTuples = [("class:hint", self._hint + "\n")] if self._hint else []
        if self._question is not None and not self._question.label:
            for command, effect in self._hints(self._buffer.text)[:_HINTS]:
                shown.append(("class:hint", short_line(f"{command}  {effect}", width) + "\n"))
        return [*shown, ("class:status", "\n".join(self._status(width)))]


class _CommandCompleter(Completer):
    def __init__(self, hints: Callable[[str], Sequence[tuple[str, str]]]) -> None:
        self._hints = hints

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield the commands that begin with what is written."""
        del complete_event
        for command, _ in self._hints(document.text):
            yield Completion(command, start_position=-len(document.text))


def _rows(content: Callable[[], Any]) -> Window:
    return Window(FormattedTextControl(content), wrap_lines=True, dont_extend_height=True)


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()

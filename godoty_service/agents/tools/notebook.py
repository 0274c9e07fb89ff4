"""The tool for notes, which an agent keeps for the whole of a session, beyond the part of it that the model sees."""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from strands import ToolContext, tool

STATE_KEY: Final = "godoty_notebook"  # in the agent's state: the texts of the notes by name
MAX_NOTES: Final = 32
MAX_NAME: Final = 64  # characters
MAX_TEXT: Final = 4_000  # characters of a note
MAX_BYTES: Final = 64 * 1024  # of all notes together, as JSON


@tool(name="notebook", context=True)
async def notebook(  # noqa: D417 - models see the docstring, and not the context
    tool_context: ToolContext, action: Literal["list", "read", "write", "delete"], name: str = "", text: str = ""
) -> str:
    """Keep short notes for the rest of the conversation; they remain when older messages are no longer visible.

    There can be 32 notes of 4000 characters each. Writing replaces the note of the same name.

    Args:
        action: "list" returns the names of the notes, "read" the text of one, "write" stores one, "delete" removes one.
        name: The name of the note, at most 64 characters; needed except to list.
        text: The text of the note, to write it.
    """
    state = tool_context.agent.state
    notes = _notes(state.get(STATE_KEY))
    if action == "list":
        return json.dumps([{"name": each, "characters": len(notes[each])} for each in notes], ensure_ascii=False)
    name = _checked_name(name)
    if action == "write":
        state.set(STATE_KEY, _with_note(notes, name, _clean(text)))
        return f"The note {name} is stored."
    if name not in notes:
        raise ValueError(f"there is no note {name!r}; list shows the names")
    if action == "read":
        return notes[name]
    del notes[name]
    state.set(STATE_KEY, notes)
    return f"The note {name} is deleted."


def _notes(value: Any) -> dict[str, str]:
    """Return the notes of a state."""
    return dict(value) if isinstance(value, Mapping) else {}


def _checked_name(name: str) -> str:
    """Return the name of a note.

    Raises:
        ValueError: It cannot be one.
    """
    name = _clean(name).strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"name must be 1 to {MAX_NAME} printable characters")
    return name


def _with_note(notes: dict[str, str], name: str, text: str) -> dict[str, str]:
    """Return the notes with one more, or one replaced.

    Raises:
        ValueError: It has no text, or there would be too many notes, or too large ones.
    """
    if not 0 < len(text) <= MAX_TEXT:
        raise ValueError(f"text must be 1 to {MAX_TEXT:,} characters; it has {len(text):,}")
    if name not in notes and len(notes) >= MAX_NOTES:
        raise ValueError(f"there are {MAX_NOTES} notes already; delete one, or write to one of them")
    added = {**notes, name: text}
    if len(json.dumps(added)) > MAX_BYTES:
        raise ValueError(f"the notes would be larger than {MAX_BYTES:,} bytes together; delete or shorten one")
    return added


def _clean(text: str) -> str:
    """Return a text that UTF-8 can encode."""
    return text.encode("utf-8", "replace").decode()

"""Closes what turns left in a session whose servers died, one after the other."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from strands.types.content import Message, Messages

from godoty_service.errors import SessionLost
from godoty_service.sessions import repair
from godoty_service.sessions.messages import KeptMessage, MessageStore
from godoty_service.sessions.session import Lease, Session
from godoty_service.turns.shown_turn import ShownTurn

_MESSAGES = 1_000  # more than the last turn of a dead server needs to be recognised by
_NOTHING_SHOWN: Mapping[str, ShownTurn] = MappingProxyType({})
_TRIES = 10  # each failed one means that a dead server's late message landed


async def close_dead_turns(
    store: MessageStore, session: Session, dead: Sequence[Lease], shown: Mapping[str, ShownTurn] = _NOTHING_SHOWN
) -> int:
    """Make a history whole at its next numbers, so that late messages of dead servers collide; return its last number.

    What is missing is computed from the read that tells the next number. Where a late message takes that number
    first, all is read again.

    Args:
        store: Where messages are.
        session: The session that was taken over.
        dead: Its dead turns, the oldest first.
        shown: What their logs show, by turn.

    Raises:
        SessionLost: A turn that was taken for dead goes on writing.
    """
    for _ in range(_TRIES):
        kept = await store.newest(session.tenant_id, session.uid, after=session.message_count, limit=_MESSAGES)
        last_number = kept[-1].number if kept else session.message_count
        try:
            for turn_id, messages in missing_messages(kept, dead, shown):
                await store.append(
                    session.tenant_id, session.uid, number=last_number + 1, turn_id=turn_id, messages=messages
                )
                last_number += len(messages)
        except SessionLost:
            continue
        return last_number
    raise SessionLost("A turn that was taken for dead goes on writing.", retry_after=1.0)


def missing_messages(
    kept: Sequence[KeptMessage], dead: Sequence[Lease], shown: Mapping[str, ShownTurn] = _NOTHING_SHOWN
) -> list[tuple[str, Messages]]:
    """Return what a history lacks of dead turns, by their ids: their users' words, tool results, answers, an end.

    Args:
        kept: The newest messages of the session, the newest last.
        dead: Its dead turns, the oldest first. One that has written was the first to do so after those before it had
            been closed.
        shown: What their logs show, by turn. A text that stands in no message yet is marked as interrupted.
    """
    history: Messages = [Message(role=each.role, content=each.content) for each in kept[-1:]]  # type: ignore[typeddict-item] # as written
    spoke = {each.turn_id for each in kept}
    first = max((place for place, each in enumerate(dead) if each.turn_id in spoke), default=0)
    found: list[tuple[str, Messages]] = []
    for each in dead[first:]:
        said: Messages = []
        if each.turn_id not in spoke:
            said = [Message(role="user", content=[{"text": each.text}])]
        seen = shown.get(each.turn_id, ShownTurn())
        closed: Messages = [
            *said,
            *repair.closing(
                [*history, *said],
                partial_text=seen.text_after(_answers(kept, each.turn_id)),
                results=seen.results,
            ),
        ]
        if closed:
            found.append((each.turn_id, closed))
            history = closed[-1:]
    return found


def _answers(kept: Sequence[KeptMessage], turn_id: str) -> int:
    """Return how many of a turn's answers with text stand in its messages."""
    own = (each for each in kept if each.turn_id == turn_id and each.role == "assistant")
    return sum(any(block.get("text") for block in each.content) for each in own)

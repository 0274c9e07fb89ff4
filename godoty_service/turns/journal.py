"""Keeps the logs of this server's turns: one write for all of them, a few times a second.

A log's readers may be a moment ahead of what is kept. Whoever closes a dead turn's log therefore goes on far above
any sequence that it can have used (`recovery.py`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from godoty_service.errors import GodotyError, SessionLost
from godoty_service.turns.chunks import Chunk, LogChunks, Outcome, writable
from godoty_service.turns.turn import Turn

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Entry:
    """How far a turn's log is kept."""

    turn: Turn
    kept: int = 0
    kept_bytes: int = 0
    place: int = 0
    chunk: Chunk | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Journal:
    """The logs that are being kept."""

    def __init__(self, chunks: LogChunks, *, writer: str, expiry: Callable[[], datetime]) -> None:
        """Build a journal.

        Args:
            chunks: Where logs are kept.
            writer: This server.
            expiry: Tells until when what is written now is kept.
        """
        self._chunks = chunks
        self._writer = writer
        self._expiry = expiry
        self._entries: dict[str, _Entry] = {}

    def keep(self, turn: Turn) -> None:
        """Keep a turn's log from now on."""
        self._entries[turn.turn_id] = _Entry(turn)

    def drop(self, turn: Turn) -> None:
        """Keep nothing of a turn: it was refused."""
        self._entries.pop(turn.turn_id, None)

    async def kept(self, turn: Turn) -> None:
        """Wait until a turn's log is kept to its end, or somebody else has closed it."""
        entry = self._entries.get(turn.turn_id)
        if entry is not None:
            await entry.done.wait()

    async def run(self, interval: float) -> None:
        """Keep logs for ever, every so many seconds."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.flush()
            except GodotyError as error:
                log.warning("logs_not_kept", error=str(error), turns=len(self._entries))
            except Exception:
                log.exception("journal_fault")

    async def flush(self) -> None:
        """Keep what has come since the last time.

        Raises:
            StorageError: It is not known what of it was kept; the next flush tries the same again.
        """
        for entry in self._entries.values():
            self._cut(entry)
        waiting = [entry for entry in self._entries.values() if entry.chunk is not None]
        if not waiting:
            return
        outcomes = await self._chunks.append([entry.chunk for entry in waiting if entry.chunk is not None])
        for entry in waiting:
            self._written(entry, outcomes[entry.turn.turn_id])

    def _cut(self, entry: _Entry) -> None:
        """Make the next chunk; one that is not known to be kept is tried again as it is."""
        turn_log = entry.turn.log
        if entry.chunk is not None or not (turn_log.sequence > entry.kept or turn_log.ended):
            return
        events, size = turn_log.chunk(entry.kept, entry.kept_bytes)
        entry.kept_bytes += size
        ended = turn_log.ended and entry.kept + len(events) == turn_log.sequence
        entry.chunk = Chunk(
            turn_id=entry.turn.turn_id,
            tenant_id=entry.turn.tenant_id,
            place=entry.place,
            first=entry.kept + 1,
            events=events,
            ended=ended,
            error=turn_log.error if ended else None,
            writer=self._writer,
            expire_time=self._expiry(),
        )

    def _written(self, entry: _Entry, outcome: Outcome) -> None:
        chunk = entry.chunk
        if chunk is None:
            return
        if outcome is Outcome.UNWRITABLE:
            self._fail(entry, chunk)
            return
        lost = outcome is Outcome.LOST
        entry.chunk = None
        entry.kept += len(chunk.events)
        entry.place += 1
        if lost:
            entry.turn.cancel(SessionLost("The session was taken over by another server.", retry_after=1.0))
        if lost or chunk.ended:
            self._done(entry)

    def _fail(self, entry: _Entry, chunk: Chunk) -> None:
        """End a turn, and its log, before an event that the database cannot hold; the logs of others go on."""
        error = GodotyError("The turn's events cannot be stored.", metadata={"request_id": entry.turn.turn_id})
        log.error("turn_log_unwritable", turn_id=entry.turn.turn_id, tenant_id=entry.turn.tenant_id)
        entry.turn.cancel(error)
        if not chunk.events:  # nothing of it can be stored
            self._done(entry)
            return
        part = writable(chunk)
        events = part.events if len(part.events) < len(chunk.events) else ()
        entry.chunk = replace(chunk, events=events, ended=True, error=error)

    def _done(self, entry: _Entry) -> None:
        self._entries.pop(entry.turn.turn_id, None)
        entry.done.set()

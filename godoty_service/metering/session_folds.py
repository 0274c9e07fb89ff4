"""Brings a session's fold up to date when entries close after their turn is gone."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from godoty_service.metering.fold_document import fold_from_document, fold_to_document
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.totals import SessionFold
from godoty_service.mongo import Snapshot

Document = dict[str, Any]


class FoldStore(Protocol):
    """Keeps a fold for each session; the sessions room does."""

    def at(self, snapshot: Snapshot) -> "FoldStore":
        """The same at a moment, to read."""

    async def read_fold(self, tenant_id: str, session_uid: str) -> tuple[Document | None, int] | None:
        """Read a fold and its revision; None: the session is deleted."""

    async def shown_fold(self, tenant_id: str, session_uid: str) -> tuple[Document | None, bool] | None:
        """Read a fold, and whether readers take it as it stands; None: the session is deleted."""

    def folded(self, tenant_id: str | None) -> AsyncIterator[tuple[str, str, str]]:
        """Tell the tenant, our id and the caller's id of each session that has folded something."""

    async def replace_fold(self, tenant_id: str, session_uid: str, *, fold: Document, revision: int) -> bool:
        """Write a fold in place of the given revision; tells whether it was still that one."""

    async def mark_unfolded(self, tenant_id: str, session_uid: str) -> None:
        """Say that an entry is about to be written outside a turn."""


class SessionFolds:
    """Folds by session."""

    def __init__(self, store: FoldStore, ledger: Ledger) -> None:
        self._store = store
        self._ledger = ledger

    async def advance(self, tenant_id: str, session_uid: str) -> None:
        """Take up what has closed or come since the fold was written. A deleted session has none."""
        while True:
            found = await self._store.read_fold(tenant_id, session_uid)
            if found is None:
                return
            fold, revision = fold_from_document(found[0]), found[1]
            entries = await self._ledger.unfolded(tenant_id, session_uid, after=fold.through, also=fold.open)
            advanced = fold_to_document(fold.take(entries))
            if await self._store.replace_fold(tenant_id, session_uid, fold=advanced, revision=revision):
                return

    async def rebuild(self, tenant_id: str, session_uid: str) -> None:
        """Fold all entries of a session anew. A deleted session has no fold."""
        while (found := await self._store.read_fold(tenant_id, session_uid)) is not None:
            entries = await self._ledger.unfolded(tenant_id, session_uid, after=0)
            fold = fold_to_document(SessionFold().take(entries))
            if await self._store.replace_fold(tenant_id, session_uid, fold=fold, revision=found[1]):
                return

    async def announce(self, tenant_id: str, session_uid: str) -> None:
        """Have readers look for entries that the fold does not know."""
        await self._store.mark_unfolded(tenant_id, session_uid)

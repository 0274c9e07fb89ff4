"""What a turn's text carries: checked against the models of the turn, and named by its session."""

import asyncio
from contextlib import AsyncExitStack

import structlog

from godoty_service.attachments.attachment import FILE, ID_KIND, IMAGE, Attachment
from godoty_service.attachments.blocks import Block, attachment_of, result_block_of
from godoty_service.attachments.errors import AttachmentLimit, AttachmentNotFound, AttachmentRejected, InputNotSupported
from godoty_service.errors import GodotyError
from godoty_service.ids import new_id
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.sessions.session import Claim
from godoty_service.turns.dependencies import TurnDependencies
from godoty_service.turns.turn import Turn

log = structlog.get_logger(__name__)

NATIVE = "native"  # the parser of documents that is the model itself


class TurnAttachments:
    """The attachments of one turn that has acquired its session."""

    def __init__(self, dependencies: TurnDependencies, turn: Turn, claim: Claim) -> None:
        self._dependencies = dependencies
        self._store = dependencies.attachments.store
        self._turn = turn
        self._session = claim.session
        lost = claim.taken_from
        dead = (*lost.predecessors, lost) if lost is not None else ()
        self._of_dead_turns = [attachment_of(block) for each in dead for block in each.attachments]
        self._naming: asyncio.Task[None] | None = None
        self._named: list[str] = []
        self._storing: set[asyncio.Task[None]] = set()

    async def begin(self, models: tuple[str, ...]) -> None:
        """Check that each model that may serve takes what the turn's text carries, and name it in the session.

        Attachments of earlier messages are another matter: a session must not end because its model is switched, so
        the model sees a note in place of those that it does not take.

        Raises:
            InputNotSupported: One of them does not take something.
            AttachmentNotFound: One was deleted since it was looked up.
            AttachmentLimit: The tenant has too many, or too many sessions name one.
        """
        self._check(models)
        if self._turn.attachments or self._of_dead_turns:
            self._naming = asyncio.create_task(self._name())
            await asyncio.shield(self._naming)  # a cancelled turn undoes what has begun

    def _check(self, models: tuple[str, ...]) -> None:
        if not self._turn.attachments:
            return
        for model in models:
            takes = inputs(self._dependencies.oracle.current, (model,), parser=self._dependencies.defaults.pdf_parser)
            for each in self._turn.attachments:
                if each.input not in takes:
                    raise InputNotSupported.of(model, each.input)

    async def store_image(self, data: bytes) -> Block | None:
        """Store an image of a tool's result, which the session names; None: it is none, or the tenant has too many."""
        tenant_id = self._session.tenant_id
        try:
            attachment = await self._dependencies.attachments.inspector.inspect(tenant_id, new_id(ID_KIND), data)
            if attachment.input != IMAGE:
                return None
            storing = asyncio.create_task(self._add_and_name(attachment, data))
            self._storing.add(storing)
            storing.add_done_callback(self._storing.discard)
            await asyncio.shield(storing)
        except (AttachmentRejected, AttachmentLimit):
            return None
        return result_block_of(attachment)

    async def wait_stored(self) -> None:
        """Wait until the images of cancelled tools are named: they go with the session. Never raises."""
        if self._storing:
            await asyncio.wait(self._storing)

    async def _add_and_name(self, attachment: Attachment, data: bytes) -> None:
        """Store an attachment, and name it in the session."""
        await self._store.add(self._session.tenant_id, attachment, data)
        await self._store.name(self._session.tenant_id, attachment.attachment_id, session_uid=self._session.uid)

    async def undo(self) -> None:
        """Undo `begin`, for a turn that has changed nothing. Never raises: what remains is found later."""
        if self._naming is None:
            return
        await asyncio.wait([self._naming])
        if not self._naming.cancelled():
            self._naming.exception()  # it is retrieved
        try:
            for attachment_id in self._named:
                await self._store.unname(self._session.tenant_id, attachment_id, session_uid=self._session.uid)
            for each in self._turn.request.attachments:
                if each.data is not None:  # a retry brings it again
                    await self._store.discard(self._session.tenant_id, each.attachment_id)
        except GodotyError as error:
            log.warning("attachments_still_named", error=str(error))

    async def _name(self) -> None:
        """Store what came with the request, and record that the session names all of it."""
        data = {each.attachment_id: each.data for each in self._turn.request.attachments}
        for each in self._of_dead_turns:
            if each is not None:
                await self._name_again(each)
        for each in self._turn.attachments:
            inline = data[each.attachment_id]
            if inline is not None:
                await self._store.add(self._session.tenant_id, each, inline)
            await self._name_one(each.attachment_id)

    async def _name_again(self, attachment: Attachment) -> None:
        """Name an attachment of a dead turn, whose message is completed by this one, if it still exists."""
        try:
            await self._store.name(self._session.tenant_id, attachment.attachment_id, session_uid=self._session.uid)
        except (AttachmentNotFound, AttachmentLimit):
            return

    async def _name_one(self, attachment_id: str) -> None:
        if await self._store.name(self._session.tenant_id, attachment_id, session_uid=self._session.uid):
            self._named.append(attachment_id)


def inputs(catalogue: Catalogue | None, models: tuple[str, ...], *, parser: str) -> frozenset[str]:
    """Return which kinds of attachments each of some models takes; unless the model reads it, any takes a document."""
    return frozenset(
        kind
        for kind in (IMAGE, FILE)
        if (kind == FILE and parser != NATIVE)
        or catalogue is None
        or all(catalogue.takes(model, kind) for model in models)
    )


async def look_up(dependencies: TurnDependencies, turn: Turn, stack: AsyncExitStack) -> None:
    """Look up what a turn's text carries; a file at a URL is stored, and deleted at the end if no session names it.

    Args:
        dependencies: The collaborators of turns.
        turn: The turn.
        stack: Its end.

    Raises:
        AttachmentNotFound: The tenant does not have one of them.
        AttachmentRejected: Bytes of the request, or of a file at a URL, are none that is taken.
    """
    sources = turn.request.attachments
    if sources:
        stack.push_async_callback(_discard_fetched, dependencies, turn)
        turn.attachments = await dependencies.attachments.resolve(turn.tenant_id, sources, dependencies.fetch_file)


async def _discard_fetched(dependencies: TurnDependencies, turn: Turn) -> None:
    """Delete the files that were fetched for a turn whose session does not name them. Never raises: they expire."""
    try:
        for each in turn.request.attachments:
            if each.url is not None:
                await dependencies.attachments.store.discard(turn.tenant_id, each.attachment_id)
    except GodotyError as error:
        log.warning("fetched_files_not_deleted", error=str(error))

"""Starts turns: claims the session, and hands over to the claimed turn."""

import asyncio

import structlog

from godoty_service.errors import GodotyError, TurnCancelled
from godoty_service.sessions.session import Claim
from godoty_service.turns.claimed import ClaimedTurn
from godoty_service.turns.turn import Turn
from godoty_service.turns.workbench import Workbench

log = structlog.get_logger(__name__)


class TurnRunner:
    """Runs turns."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def run(self, turn: Turn) -> None:
        """Run a turn to its end, whatever ends it; its log ends with it."""
        structlog.contextvars.bind_contextvars(
            tenant_id=turn.tenant_id, session_id=turn.request.session_id, turn_id=turn.turn_id
        )
        try:
            claim = await self._claim(turn)
        except asyncio.CancelledError:
            turn.log.end(TurnCancelled("The turn was cancelled."))
        except GodotyError as error:
            turn.log.end(error)
        except Exception:
            log.exception("turn_fault")
            turn.log.end(GodotyError("The server failed.", metadata={"request_id": turn.turn_id}))
        else:
            with self._bench.observer.running_turn():
                await ClaimedTurn(self._bench, turn, claim).run()

    async def _claim(self, turn: Turn) -> Claim:
        """Claim the session; a claim that lands although nobody waits for it any more is given back."""
        request = turn.request
        claiming = asyncio.create_task(
            self._bench.sessions.claim(
                turn.tenant_id,
                request.session_id,
                turn_id=turn.turn_id,
                text=request.text,
                model=request.model,
                default_model=self._bench.defaults.model,
                user=request.user,
            )
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await self._give_back(claiming)
            raise

    async def _give_back(self, claiming: "asyncio.Task[Claim]") -> None:
        try:
            claim = await claiming
            if claim.created:
                await self._bench.sessions.delete(claim.session)
            elif claim.taken_from is None:
                await self._bench.sessions.release(claim.session)
            else:  # the dead turn's history is still to be closed: the next claim does it
                await self._bench.sessions.pass_on(claim.session, claim.taken_from)
        except GodotyError as error:
            log.warning("claim_not_given_back", error=str(error))

"""Raises the reasons that concern forks."""

from typing import Any

from godoty.v1 import agent_service_pb2 as pb

from godoty_service.session_copies import forks
from tests.e2e.reasons.environment import Environment
from tests.e2e.reasons.raising import raises
from tests.support.caller import Caller, Failure, failure_of


async def _fork(caller: Caller, **fields: Any) -> Failure:
    """Fork a session, which fails."""
    return await failure_of(caller.call("ForkSession", pb.ForkSessionRequest(session_id="first", **fields)))


@raises("SESSION_EXISTS")
async def _exists(environment: Environment) -> Failure:
    for session_id in ("first", "second"):
        await environment.caller.converse("hello", session_id=session_id)
    return await _fork(environment.caller, fork_session_id="second")


@raises("FORK_POINT_REFUSED")
async def _refused(environment: Environment) -> Failure:
    await environment.caller.converse("@sandbox tool-loop calls=2 tool=calculator", session_id="first")
    return await _fork(environment.caller, number=3)


@raises("SESSION_TOO_LARGE")
async def _too_large(environment: Environment) -> Failure:
    caller = environment.connect(await environment.serve())
    await caller.converse("hello", session_id="first")
    with environment.monkeypatch.context() as small:
        small.setattr(forks, "MAX_MESSAGES", 1)
        return await _fork(caller)

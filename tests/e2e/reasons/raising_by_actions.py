"""Raises the reasons that concern actions."""

from datetime import timedelta
from typing import Any

from godoty.v1 import action_pb2
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.clock import utc_now
from godoty_service.tenancy.auth import Scope
from tests.e2e.reasons.environment import Environment
from tests.e2e.reasons.raising import raises
from tests.support.caller import Failure, failure_of

_STEP = "@sandbox tool-loop calls=2 parallel=2 tool=calculator"


async def _ask(environment: Environment, decider: str = "ACTION_DECIDER_CALLER") -> action_pb2.Action:
    tool: Any = {"builtin": "calculator", "approval": {"decider": decider}}
    await environment.define(name="asker", tools=[tool])
    turn = await environment.caller.converse(_STEP, agent="asker")
    return turn.finished.actions[0]


async def _decide(environment: Environment, action_id: str, key: str = "") -> Failure:
    request = pb.DecideActionRequest(action_result={"action_id": action_id, "approve": {}})
    metadata = (("authorization", f"Bearer {key or environment.service.api_key}"),)
    return await failure_of(environment.caller.stub.DecideAction(request, metadata=metadata, timeout=90.0))


@raises("ACTION_NOT_FOUND")
async def _no_action(environment: Environment) -> Failure:
    return await _decide(environment, "act_0")


@raises("ACTION_DECIDED")
async def _decided(environment: Environment) -> Failure:
    action = await _ask(environment)
    key = environment.issue(environment.service, scopes=frozenset({Scope.APPROVE}))
    request = pb.DecideActionRequest(action_result={"action_id": action.action_id, "deny": {}})
    await environment.caller.stub.DecideAction(request, metadata=(("authorization", f"Bearer {key}"),), timeout=90.0)
    return await _decide(environment, action.action_id)


@raises("ACTION_CLOSED")
async def _closed(environment: Environment) -> Failure:
    action = await _ask(environment)
    await environment.caller.converse("never mind")
    return await _decide(environment, action.action_id)


@raises("ACTION_EXPIRED")
async def _expired(environment: Environment) -> Failure:
    action = await _ask(environment)
    past = {"$set": {"expire_time": utc_now() - timedelta(days=1)}}
    environment.service.database["actions"].update_one({"_id": action.action_id}, past)
    return await _decide(environment, action.action_id)


@raises("REVIEWER_ONLY")
async def _reviewer(environment: Environment) -> Failure:
    return await _decide(environment, (await _ask(environment, "ACTION_DECIDER_REVIEWER")).action_id)

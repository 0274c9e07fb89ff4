"""Raises the reasons that concern agents."""

from tests.e2e.reasons.environment import Environment
from tests.e2e.reasons.raising import failed, raises
from tests.support.caller import Failure, failure_of


@raises("AGENT_NOT_FOUND")
async def _no_agent(environment: Environment) -> Failure:
    return failed(await environment.caller.converse("hi", agent="support"))


@raises("AGENT_MISMATCH")
async def _mismatch(environment: Environment) -> Failure:
    for name in ("support", "sales"):
        await environment.define(name=name)
    await environment.caller.converse("hi", agent="support")
    return failed(await environment.caller.converse("hi", agent="sales"))


@raises("AGENT_LIMIT")
async def _limit(environment: Environment) -> Failure:
    tenant_id = environment.service.tenant_id
    environment.service.database["agents"].insert_many(
        {"_id": f"{tenant_id}/a{number}", "tenant_id": tenant_id, "name": f"a{number}"} for number in range(1000)
    )
    return await failure_of(environment.define(name="one-more"))

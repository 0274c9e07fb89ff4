"""Raises the reasons that follow from the states of tenants and from the erasure of end users."""

from dataclasses import replace

from godoty.v1 import tenant_pb2

from godoty_service import user_erasure
from godoty_service.ids import new_id
from godoty_service.tenancy.auth import Scope
from tests.e2e.reasons.environment import Environment
from tests.e2e.reasons.raising import failed, raises
from tests.support.caller import Failure, failure_of


@raises("TENANT_SUSPENDED")
async def _suspended(environment: Environment) -> Failure:
    key = environment.issue(environment.service, scopes=frozenset({Scope.ADMIN}))
    await environment.administer(key, "SuspendTenant")
    return failed(await environment.caller.converse("hi"))


@raises("TENANT_DELETED")
async def _deleted(environment: Environment) -> Failure:
    key = environment.issue(environment.other_tenant.service, scopes=frozenset({Scope.ADMIN}))
    await environment.administer(key, "DeleteTenant")
    return await failure_of(environment.administer(key, "CreateApiKey", scopes=[tenant_pb2.API_SCOPE_CONVERSE]))


@raises("TENANT_EXISTS")
async def _exists(environment: Environment) -> Failure:
    key = environment.issue(environment.service, scopes=frozenset({Scope.ADMIN}))
    fields = {"tenant_id": new_id("acme").replace("_", "-"), "display_name": "Acme"}
    await environment.administer(key, "CreateTenant", **fields)
    return await failure_of(environment.administer(key, "CreateTenant", **fields))


@raises("USER_NOT_FOUND")
async def _no_user(environment: Environment) -> Failure:
    await environment.caller.converse("hello", user="ann")
    key = environment.issue(environment.service, scopes=frozenset({Scope.ADMIN}))
    await environment.administer(key, "EraseUser", user="ann")
    return await failure_of(environment.administer(key, "EraseUser", user="ann"))


@raises("ERASURE_UNFINISHED")
async def _erasure_unfinished(environment: Environment) -> Failure:
    own = replace(environment, caller=environment.connect(await environment.serve()))
    await own.caller.converse("hello", user="ann")
    own.monkeypatch.setattr(user_erasure, "PATIENCE", 0.5)
    return await own.admin("EraseUser", user="ann")

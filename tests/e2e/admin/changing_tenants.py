"""Changes of tenants in the isolation test: one is suspended and resumed, deleted and replaced, or loses a user."""

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import grpc
from bson import json_util
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import agent_service_pb2 as agent_pb
from godoty.v1 import billing_service_pb2 as billing_pb
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from godoty_service.tenancy.auth import Scope
from tests.e2e.admin.tenants import Answer, IsolationCheck, Tenant, converse
from tests.support.invoking import invoke
from tests.support.service import Service

WHO = st.integers(0, 2)
CHANGES = ("suspension", "erasure", "deletion")
OK, DENIED = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED
_IN_FORCE = 60.0  # seconds to wait for what is promised within 5; it is measured elsewhere
START, END = Timestamp(seconds=1_780_000_000), Timestamp(seconds=1_810_000_000)


class ChangingTenants(RuleBasedStateMachine):
    """The changes. Each takes seconds, so a run makes one, before its moves.

    Attributes:
        isolation: Calls the server as the tenants, and searches each response.
        pool: Further tenants.
        service: Runs commands on the server's database.
        change: The kind of change: one of `CHANGES`.
    """

    pool: ClassVar[Iterator[Tenant]]
    service: ClassVar[Service]
    change: ClassVar[str]
    isolation: IsolationCheck

    def make_change(self, who: int, *, by_operator: bool) -> None:
        """Make the change of the run to a tenant."""
        if self.change == "suspension":
            self._suspend_and_resume(who)
        elif self.change == "erasure":
            self._erase_the_user(who, by_operator=by_operator)
        else:
            self._delete_and_replace(who)

    def open_session(self, who: Tenant, number: int) -> None:
        """Run the first turn of a session with the tenant's end user."""
        session_id = f"session-{who.mark[5:]}-{number}"
        answer = self.isolation.ask(who, Scope.CONVERSE, "agent", "Converse", converse(who, session_id, user=who.user))
        assert answer.code is OK
        assert who.mark in str(answer.messages)  # the answer repeats the text, so the search can find it
        who.sessions.append(session_id)

    def _suspend_and_resume(self, who: int) -> None:
        """A suspended tenant reads its bill and its keys, and calls nothing else; no other tenant notices."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[(who + 1) % 3]
        assert self._administer(other, "SuspendTenant", tenant_id=me.tenant_id).code is OK
        self._until(lambda: self._sessions_of(me).code is DENIED)
        for method in agent_pb.DESCRIPTOR.services_by_name["AgentService"].methods:
            request = getattr(agent_pb, method.input_type.name)()
            assert self.isolation.ask(me, Scope.CONVERSE, "agent", method.name, request).code is DENIED, method.name
        assert self._usage(me).code is OK
        keys = admin_pb.ListApiKeysRequest(tenant_id=me.tenant_id)
        assert self.isolation.ask(me, Scope.TENANT_ADMIN, "admin", "ListApiKeys", keys).code is OK
        assert self._converse(other, other.sessions[0]).code is OK
        assert self._administer(other, "ResumeTenant", tenant_id=me.tenant_id).code is OK
        self._until(lambda: self._sessions_of(me).code is OK)
        assert self._converse(me, me.sessions[0]).code is OK
        self._verify(me)

    def _erase_the_user(self, who: int, *, by_operator: bool) -> None:
        """The name is in no collection, list, bill, export or recorded change; the tenant goes on with another user."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[(who + 1) % 3]
        name = me.user
        erase = {"tenant_id": me.tenant_id, "user": name}
        if by_operator:
            erased = self._administer(other, "EraseUser", **erase)
        else:
            request = admin_pb.EraseUserRequest(**erase)
            erased = self.isolation.ask(me, Scope.TENANT_ADMIN, "admin", "EraseUser", request)
        assert erased.code is OK
        assert erased.messages[0].sessions >= 1
        me.sessions.clear()
        me.erased.update(me.ids)
        me.ids.clear()
        me.user = f"user-{secrets.token_hex(8)}"
        self.open_session(me, 3 + who)
        everything = [
            *(self._usage(me), self._sessions_of(me)),
            self._bill(me, "ListLedgerEntries", billing_pb.ListLedgerEntriesRequest()),
            self._bill(me, "ExportLedger", billing_pb.ExportLedgerRequest()),
            self._administer(other, "ListAdminChanges", tenant_id=me.tenant_id),
            self.isolation.ask(me, Scope.CONVERSE, "agent", "ListTurns", agent_pb.ListTurnsRequest()),
        ]
        assert [answer.code for answer in everything] == [OK] * len(everything)
        assert not any(name in str(message) for answer in everything for message in answer.messages)
        for collection in self.service.database.list_collections():
            documents = self.service.database[collection["name"]].find({"tenant_id": me.tenant_id})
            assert not any(name in json_util.dumps(each) for each in documents), collection["name"]
        self._verify(me)

    def _delete_and_replace(self, who: int) -> None:
        """A deleted tenant's keys are invalid, its id is never used again, and its successor sees nothing of it."""
        me, other = self.isolation.tenants[who], self.isolation.tenants[(who + 1) % 3]
        assert self._administer(other, "DeleteTenant", tenant_id=me.tenant_id).code is OK
        self._until(lambda: self._sessions_of(me).code is grpc.StatusCode.UNAUTHENTICATED)
        assert self._usage(me).code is grpc.StatusCode.UNAUTHENTICATED
        again = self._administer(other, "CreateTenant", tenant_id=me.tenant_id, display_name="again")
        assert again.code is grpc.StatusCode.ALREADY_EXISTS
        for method in ("ResumeTenant", "CreateApiKey"):
            assert self._administer(other, method, tenant_id=me.tenant_id).code is not OK
        self._verify(me)
        replacement = next(self.pool)
        self.isolation.replace(me, replacement)
        self.open_session(replacement, 3 + who)
        assert self._converse(other, other.sessions[0]).code is OK

    def _administer(self, who: Tenant, method: str, **fields: Any) -> Answer:
        request = getattr(admin_pb, f"{method}Request")(**fields)
        return self.isolation.ask(who, Scope.ADMIN, "admin", method, request)

    def _converse(self, who: Tenant, session_id: str) -> Answer:
        return self.isolation.ask(who, Scope.CONVERSE, "agent", "Converse", converse(who, session_id))

    def _sessions_of(self, who: Tenant) -> Answer:
        return self.isolation.ask(who, Scope.CONVERSE, "agent", "ListSessions", agent_pb.ListSessionsRequest())

    def _usage(self, who: Tenant) -> Answer:
        request = billing_pb.GetUsageRequest(
            start_time=START, end_time=END, group_by=[billing_pb.USAGE_GROUP_USER, billing_pb.USAGE_GROUP_API_KEY]
        )
        return self._bill(who, "GetUsage", request)

    def _bill(self, who: Tenant, method: str, request: Any) -> Answer:
        return self.isolation.ask(who, Scope.BILLING, "billing", method, request)

    def _verify(self, who: Tenant) -> None:
        """Run `godoty ledger verify` for a tenant."""
        printed = invoke(self.service, "ledger", "verify", "--tenant", who.tenant_id)
        assert printed.endswith(" 0 differences\n"), printed

    def _until(self, holds: Callable[[], bool]) -> None:
        give_up = time.monotonic() + _IN_FORCE
        while not holds():
            assert time.monotonic() < give_up, "the change is not in force"
            time.sleep(0.1)

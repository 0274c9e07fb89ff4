"""BillingService: one short method an RPC."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Protocol

from godoty.v1 import billing_service_pb2 as pb
from godoty.v1 import billing_service_pb2_grpc

from godoty_service.errors import TenantNotFound
from godoty_service.metering.budgets import BudgetStatus
from godoty_service.metering.catalogue import Catalogue
from godoty_service.metering.ledger_export import LedgerExport
from godoty_service.metering.ledger_pages import EntryFilter, LedgerPages, Place
from godoty_service.metering.usage_groups import plain
from godoty_service.metering.usage_query import MOST_GROUPS, Page, UsageQuery
from godoty_service.rpc import billing_requests as requests
from godoty_service.rpc.billing_messages import budget_messages, entry_messages, usage_answer_message
from godoty_service.rpc.edge import Call
from godoty_service.rpc.metering_messages import timestamp
from godoty_service.rpc.paging import fitting, page_size, parts, read_place, read_token, write_token
from godoty_service.tenancy.principal import Scope
from godoty_service.tenancy.tenants import Tenants

_SERVICE = pb.DESCRIPTOR.services_by_name["BillingService"]
SERVICE_NAME: str = _SERVICE.full_name
SCOPES = {f"/{SERVICE_NAME}/{method.name}": (Scope.BILLING, Scope.ADMIN) for method in _SERVICE.methods}


class BudgetStatuses(Protocol):
    """Tells how budgets stand."""

    async def status(self, tenant_id: str) -> list[BudgetStatus]:
        """Tell how a tenant's budgets stand."""


class BillingService(billing_service_pb2_grpc.BillingServiceServicer):
    """What a tenant has used and what it cost."""

    def __init__(
        self,
        *,
        usage: UsageQuery,
        pages: LedgerPages,
        exports: LedgerExport,
        budgets: BudgetStatuses,
        tenants: Tenants,
        catalogue: Callable[[], Catalogue | None],
        page_bytes: int,
    ) -> None:
        self._catalogue = catalogue
        self._page_bytes = page_bytes
        self._usage = usage
        self._exports = exports
        self._pages = pages
        self._budgets = budgets
        self._tenants = tenants

    async def GetUsage(self, request: pb.GetUsageRequest, call: Call) -> pb.GetUsageResponse:
        """Sum a time range."""
        question = requests.usage_question(request)
        size = page_size(request.page_size, default=MOST_GROUPS, most=MOST_GROUPS)
        tenant_id = await self._tenant(request.tenant_id, call)
        query = ("usage", tenant_id, repr(question))
        as_of, after = requests.usage_place(read_token(request.page_token, query), question)
        page = Page(size=size, after=after)
        answer = await self._usage.ask(tenant_id, replace(question, as_of=as_of), page)
        later = answer.later if question.as_of is not None else None
        response = await usage_answer_message(replace(answer, later=later), most_bytes=self._page_bytes)
        shown = len(response.rows)
        end = answer.end if shown == len(answer.rows) else answer.rows[shown - 1].key
        if end is not None:
            response.next_page_token = write_token(query, [answer.as_of.isoformat(), *plain(end)])
        return response

    async def ListLedgerEntries(self, request: pb.ListLedgerEntriesRequest, call: Call) -> pb.ListLedgerEntriesResponse:
        """Read a page of entries."""
        which = self._named(requests.entry_filter(request))
        size = page_size(request.page_size, default=100)
        tenant_id = await self._tenant(request.tenant_id, call)
        query = ("ledger", tenant_id, repr(which))
        after = requests.place(read_place(request.page_token, query, str, int, str))
        page = await self._pages.page(tenant_id, which, after=after, limit=size + 1)
        entries = fitting(await entry_messages(page[:size]), most_bytes=self._page_bytes)
        response = pb.ListLedgerEntriesResponse(entries=entries)
        if len(page) > len(entries):
            last = Place.of(page[len(entries) - 1])
            response.next_page_token = write_token(query, [last.start.isoformat(), last.number, last.entry_id])
        return response

    async def ExportLedger(self, request: pb.ExportLedgerRequest, call: Call) -> AsyncIterator[pb.ExportLedgerResponse]:
        """Read all entries of one time, which the first message states."""
        which = requests.entry_filter(request)
        tenant_id = await self._tenant(request.tenant_id, call)
        export = await self._exports.begin(tenant_id, which)
        yield pb.ExportLedgerResponse(as_of=timestamp(export.as_of))
        async for page in export.pages:
            for entries in parts(await entry_messages(page), most_bytes=self._page_bytes):
                yield pb.ExportLedgerResponse(entries=entries)

    async def GetBudget(self, request: pb.GetBudgetRequest, call: Call) -> pb.GetBudgetResponse:
        """Read how the budgets stand."""
        tenant_id = await self._tenant(request.tenant_id, call)
        return pb.GetBudgetResponse(budgets=budget_messages(await self._budgets.status(tenant_id)))

    def _named(self, which: EntryFilter) -> EntryFilter:
        """Add the other names of the wanted model."""
        catalogue = self._catalogue()
        if not which.model or catalogue is None:
            return which
        return replace(which, other_names=catalogue.other_names(which.model))

    async def _tenant(self, asked: str, call: Call) -> str:
        """Tell whose data is asked for.

        Raises:
            TenantNotFound: There is no such tenant, or the key may not read it: which of them is not told.
        """
        if not asked or asked == call.tenant_id:
            return call.tenant_id
        if Scope.ADMIN not in call.principal.scopes or await self._tenants.get(asked) is None:
            raise TenantNotFound("There is no such tenant.", metadata={"tenant_id": asked[:128]})
        return asked

"""BillingService: one short method per RPC."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from godoty.v1 import billing_service_pb2 as pb
from godoty.v1 import billing_service_pb2_grpc

from godoty_service.budgets.store import BudgetStatus
from godoty_service.errors import InvalidRequest, TenantNotFound
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.rpc.billing import codec
from godoty_service.rpc.billing.codec import budget_messages, cursor_position, entry_messages, usage_report_message
from godoty_service.rpc.interceptor import CallContext
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.pagination import (
    CURSOR,
    PAGE_TOKEN,
    PageRequest,
    decode_any_token,
    encode_token,
    invalid_token,
    page_size,
    split_by_size,
)
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.tenants import Tenants
from godoty_service.usage.grouping import key_to_texts
from godoty_service.usage.ledger_pages import EntryCursor, EntryFilter, LedgerExport, LedgerPages
from godoty_service.usage.query import MAX_GROUPS, Page, UsageQueries

_SERVICE = pb.DESCRIPTOR.services_by_name["BillingService"]
SERVICE_NAME: str = _SERVICE.full_name
SCOPES = {f"/{SERVICE_NAME}/{method.name}": (Scope.BILLING, Scope.ADMIN) for method in _SERVICE.methods}


class BudgetStatuses(Protocol):
    """Reads the status of budgets."""

    async def status(self, tenant_id: str) -> list[BudgetStatus]:
        """Return the status of a tenant's budgets."""


class BillingService(billing_service_pb2_grpc.BillingServiceServicer):
    """A tenant's usage, ledger and budgets."""

    def __init__(
        self,
        *,
        usage: UsageQueries,
        pages: LedgerPages,
        exports: LedgerExport,
        budgets: BudgetStatuses,
        tenants: Tenants,
        catalogue: Callable[[], Catalogue | None],
        page_bytes: int,
    ) -> None:
        """Create the service.

        Args:
            usage: Runs usage queries.
            pages: Reads pages of the ledger.
            exports: Reads the whole ledger.
            budgets: Reads the status of budgets.
            tenants: The tenants.
            catalogue: Returns the provider's models, or None if they are unknown.
            page_bytes: Bytes at which a page ends.
        """
        self._usage = usage
        self._pages = pages
        self._exports = exports
        self._budgets = budgets
        self._tenants = tenants
        self._catalogue = catalogue
        self._page_bytes = page_bytes

    async def GetUsage(self, request: pb.GetUsageRequest, call: CallContext) -> pb.GetUsageResponse:
        """Return the usage in a time range, grouped."""
        usage_query = codec.parse_usage_query(request)
        size = page_size(request.page_size, default=MAX_GROUPS, most=MAX_GROUPS)
        tenant_id = await self._readable_tenant(request.tenant_id, call)
        query = ("usage", tenant_id, repr(usage_query))
        as_of, after = codec.parse_usage_position(decode_any_token(request.page_token, query), usage_query)
        with _as_of_token(PAGE_TOKEN, request.page_token):
            report = await self._usage.run(tenant_id, replace(usage_query, as_of=as_of), Page(size=size, after=after))
        later = report.later_cost if usage_query.as_of is not None else None
        response = await usage_report_message(
            replace(report, later_cost=later), usage_query, max_bytes=self._page_bytes
        )
        shown = len(response.rows)
        end = report.end if shown == len(report.rows) else report.rows[shown - 1].key
        if end is not None:
            response.next_page_token = encode_token(query, [report.as_of.isoformat(), *key_to_texts(end)])
        return response

    async def ListLedgerEntries(
        self, request: pb.ListLedgerEntriesRequest, call: CallContext
    ) -> pb.ListLedgerEntriesResponse:
        """Return a page of ledger entries."""
        entry_filter = self._with_other_names(codec.parse_entry_filter(request))
        tenant_id = await self._readable_tenant(request.tenant_id, call)
        page = PageRequest(request, ("ledger", tenant_id, repr(entry_filter)), str, int, str)
        after = codec.parse_entry_position(page.position)
        if entry_filter.visible_at is not None:
            await self._exports.reach(tenant_id, entry_filter.visible_at)
        found = await self._pages.page(tenant_id, entry_filter, after=after, limit=page.limit)
        entries, token = page.cut(
            found.entries,
            await entry_messages(found.entries[: page.size]),
            position=lambda each: cursor_position(EntryCursor.of(each)),
            max_bytes=self._page_bytes,
        )
        if not token and found.end is not None:
            token = page.next_token(cursor_position(found.end))
        return pb.ListLedgerEntriesResponse(entries=entries, next_page_token=token)

    async def ExportLedger(
        self, request: pb.ExportLedgerRequest, call: CallContext
    ) -> AsyncIterator[pb.ExportLedgerResponse]:
        """Stream all ledger entries as of one time, which the first response states."""
        entry_filter = codec.parse_entry_filter(request)
        tenant_id = await self._readable_tenant(request.tenant_id, call)
        query = ("export", tenant_id, repr(entry_filter))
        as_of, after = codec.parse_export_position(decode_any_token(request.cursor, query, field=CURSOR))
        with _as_of_token(CURSOR, request.cursor):
            export = await self._exports.begin(tenant_id, entry_filter, as_of=as_of, after=after)

        def cursor(position: EntryCursor | None) -> str:
            place = cursor_position(position) if position is not None else []
            return encode_token(query, [export.as_of.isoformat(), *place])

        yield pb.ExportLedgerResponse(as_of=timestamp(export.as_of), cursor=cursor(after))
        async for page in export.pages:
            last = -1
            for entries in split_by_size(await entry_messages(page), max_bytes=self._page_bytes):
                last += len(entries)
                yield pb.ExportLedgerResponse(entries=entries, cursor=cursor(EntryCursor.of(page[last])))

    async def GetBudget(self, request: pb.GetBudgetRequest, call: CallContext) -> pb.GetBudgetResponse:
        """Return the status of a tenant's budgets."""
        tenant_id = await self._readable_tenant(request.tenant_id, call)
        return pb.GetBudgetResponse(budgets=budget_messages(await self._budgets.status(tenant_id)))

    def _with_other_names(self, entry_filter: EntryFilter) -> EntryFilter:
        """Add the other names of the filter's model."""
        catalogue = self._catalogue()
        if not entry_filter.model or catalogue is None:
            return entry_filter
        return replace(entry_filter, other_names=catalogue.other_names(entry_filter.model))

    async def _readable_tenant(self, requested: str, call: CallContext) -> str:
        """Return the tenant whose data the call may read.

        Raises:
            InvalidRequest: It cannot be an id.
            TenantNotFound: It does not exist, or the key may not read it; the text does not distinguish them.
        """
        if codec.parse_tenant_id(requested) in ("", call.tenant_id):
            return call.tenant_id
        if not call.principal.is_operator or await self._tenants.get(requested) is None:
            raise TenantNotFound("There is no such tenant.", metadata={"tenant_id": requested})
        return requested


@contextmanager
def _as_of_token(field: str, token: str) -> Iterator[None]:
    """Name the token as the invalid field if its `as_of` is: one in the future was forged.

    Args:
        field: The field of the token.
        token: The token; empty: the `as_of` is the request's own.
    """
    try:
        yield
    except InvalidRequest as error:
        if token and error.violations[0].field == "as_of":
            raise invalid_token(field) from None
        raise

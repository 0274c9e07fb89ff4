"""A client of BillingService over one channel."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import grpc
from godoty.v1 import billing_service_pb2 as pb
from godoty.v1 import billing_service_pb2_grpc, ledger_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from tests.support.service import PATIENCE, Service


class BillingCaller:
    """Calls BillingService with a key."""

    def __init__(self, service: Service, channel: grpc.aio.Channel, key: str) -> None:
        self.service = service
        self.stub: Any = billing_service_pb2_grpc.BillingServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        self._metadata = (("authorization", f"Bearer {key}"),)

    async def usage(self, start: datetime, end: datetime, *groups: str, **fields: Any) -> pb.GetUsageResponse:
        """Call GetUsage."""
        request = pb.GetUsageRequest(
            start_time=timestamp(start),
            end_time=timestamp(end),
            group_by=[f"USAGE_GROUP_{group.upper()}" for group in groups],
            **fields,
        )
        return await self.call("GetUsage", request)  # type: ignore[no-any-return] # the stub says nothing

    async def call(self, method: str, request: Any) -> Any:
        """Call a unary method."""
        return await getattr(self.stub, method)(request, metadata=self._metadata, timeout=PATIENCE)

    async def all_entries(self, **fields: Any) -> list[ledger_pb2.LedgerEntry]:
        """Read all pages."""
        found: list[ledger_pb2.LedgerEntry] = []
        token = ""
        while True:
            request = pb.ListLedgerEntriesRequest(page_token=token, **fields)
            page = await self.call("ListLedgerEntries", request)
            found.extend(page.entries)
            if not (token := page.next_page_token):
                return found

    async def export(self, **fields: Any) -> list[pb.ExportLedgerResponse]:
        """Read the stream."""
        request = pb.ExportLedgerRequest(**fields)
        return [each async for each in self.stub.ExportLedger(request, metadata=self._metadata, timeout=PATIENCE)]


def keys_of(report: pb.GetUsageResponse) -> list[tuple[str, ...]]:
    """Return the keys of each row as text: times in the report's zone, and an unset key as an empty text."""
    zone = ZoneInfo(report.time_zone)

    def text(key: pb.UsageKey) -> str:
        name = key.WhichOneof("key")
        if name == "time":
            return key.time.ToDatetime(tzinfo=UTC).astimezone(zone).isoformat()
        return getattr(key, name) if name is not None else ""

    return [tuple(text(key) for key in row.keys) for row in report.rows]


def timestamp(time: datetime) -> Timestamp:
    """Convert a time."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def entry_name(entry: ledger_pb2.LedgerEntry) -> str:
    """Return an entry's id."""
    return entry.call.call_id or entry.adjustment.adjustment_id

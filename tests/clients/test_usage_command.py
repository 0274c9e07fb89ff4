"""`godoty-usage`, as a user starts it: against the service, and a stand-in with more than a page of rows."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import grpc.aio
import pyarrow.parquet as pq
import pytest
from godoty.v1 import billing_service_pb2 as pb
from godoty.v1 import metering_pb2
from godoty.v1.billing_service_pb2_grpc import BillingServiceServicer, add_BillingServiceServicer_to_server

from godoty_service.tenancy.auth import Scope
from tests.clients.programs import USAGE, run
from tests.support.service import PATIENCE, format_amount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from tests.clients.conftest import Context
    from tests.clients.kinds import Driver
    from tests.support.service import Service

    Run = Callable[..., Coroutine[Any, Any, tuple[int, str, str]]]

_PAGE, _ROWS = 10_000, 21_000
_COST = "0.0000000000000000000000001"  # 25 decimals, the finest of an amount


async def _run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GODOTY_")}
    return await run(USAGE, *arguments, environment=kept | environment)


async def _run_anew(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the command in a fresh interpreter."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GODOTY_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "godoty.usage", *arguments),
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), timeout=PATIENCE)
    return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
def usage(service: Service, issue: Callable[..., str]) -> Run:
    """Runs the command with a key of the scope billing alone."""
    key = issue(service, scopes=frozenset({Scope.BILLING}))
    return lambda *arguments: _run(*arguments, GODOTY_LISTEN=service.target, GODOTY_API_KEY=key)


class FakeBilling(BillingServiceServicer):
    """Has more sessions than a page; one of them is unresolved."""

    def __init__(self) -> None:
        self.as_of: list[datetime | None] = []

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:  # noqa: N802 - gRPC's name
        """Returns a page."""
        self.as_of.append(request.as_of.ToDatetime(UTC) if request.HasField("as_of") else None)
        start = int(request.page_token or 0)
        end = min(start + _PAGE, _ROWS)
        total = format(Decimal(_COST) * _ROWS, "f")
        response = pb.GetUsageResponse(
            rows=[
                pb.UsageRow(
                    keys=[pb.UsageKey(session_id=f"session-{number}\x1b[2J")],
                    totals=metering_pb2.Totals(cost_usd=_COST, model_calls=1, unresolved_calls=int(number == 0)),
                )
                for number in range(start, end)
            ],
            totals=metering_pb2.Totals(cost_usd=total, model_calls=_ROWS, unresolved_calls=1),
            next_page_token=str(end) if end < _ROWS else "",
        )
        response.as_of.FromDatetime(datetime(2026, 11, 29, 12, tzinfo=UTC))
        return response


@pytest.fixture
async def many_sessions() -> AsyncIterator[tuple[FakeBilling, dict[str, str]]]:
    """The stand-in, and the environment that names it."""
    server, servicer = grpc.aio.server(), FakeBilling()
    add_BillingServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call] # generated
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, {"GODOTY_LISTEN": f"127.0.0.1:{port}", "GODOTY_API_KEY": "gdt_standin_secret"}
    await server.stop(grace=None)


@pytest.mark.parametrize("kind", ["asynchronous"], indirect=True)
async def test_all_formats_have_the_exact_amounts(
    driver: Driver, service: Service, usage: Run, session_id: str, tmp_path: Path
) -> None:
    """To the last decimal of the invoice, by model, user and day."""
    await driver.turn("@sandbox tool-loop calls=3", session=session_id, user="ann")
    await driver.turn("hi", session=f"{session_id}-2", model="anthropic/claude-haiku-4.5")
    total = service.invoiced(session_id) + service.invoiced(f"{session_id}-2")
    now = datetime.now(UTC)
    span = ("--from", (now - timedelta(days=1)).isoformat(), "--to", (now + timedelta(days=1)).isoformat())
    groups = (*span, "--by", "day", "--by", "model", "--by", "user")

    code, text, err = await usage(*groups, "--format", "csv")
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sum(Decimal(row["cost_usd"]) for row in rows) == total
    assert [(row["user"], row["model_calls"]) for row in sorted(rows, key=lambda each: each["user"])] == [
        ("", "1"),
        ("ann", "3"),
    ]
    assert {len(row["user_reference"]) > 1 for row in rows if row["user"]} == {True}

    code, text, err = await usage(*groups, "--output", str(tmp_path / "usage.json"))
    report = json.loads((tmp_path / "usage.json").read_text())
    assert (code, text, err) == (0, "", "")
    assert Decimal(report["total"]["cost_usd"]) == total == sum(Decimal(row["cost_usd"]) for row in report["rows"])
    assert [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in report["rows"]
    ] == rows

    code, text, err = await usage(*groups, "--output", str(tmp_path / "usage.parquet"))
    assert (code, text, err) == (0, "", "")
    table = pq.read_table(tmp_path / "usage.parquet")
    assert sum(table["cost_usd"].to_pylist()) == total
    assert str(table.schema.field("cost_usd").type) == "decimal128(38, 25)"
    assert {each.isoformat() for each in table["day"].to_pylist()} == {row["day"] for row in rows}
    assert table["day"].to_pylist() == [date.fromisoformat(row["day"]) for row in rows]


@pytest.mark.parametrize("kind", ["asynchronous"], indirect=True)
async def test_overview_has_the_spending_by_day_model_agent_and_user(
    driver: Driver, service: Service, usage: Run, session_id: str
) -> None:
    """At 40 and at 200 columns, with each total as the invoice has it; days without spending are in it."""
    await driver.turn("@sandbox tool-loop calls=3", session=session_id, user="ann")
    total = format_amount(service.invoiced(session_id))
    (entry, *_) = service.entries(session_id)
    end = entry.start_time.date() + timedelta(days=1)
    start = end - timedelta(days=4)
    for width in (40, 200):
        code, out, err = await usage("--width", str(width), "--from", str(start), "--to", str(end))
        assert (code, err) == (0, "")
        assert max(map(len, out.splitlines())) <= width
        _, _, tables = out.partition("\n\n")
        lines = tables.splitlines()
        assert [line.split()[0] for line in lines if line.split()[1:3] == ["cost", "USD"]] == [
            "day",
            "model",
            "agent",
            "user",
        ]
        assert [line.split()[1] for line in lines if line.startswith("total ")] == [total] * 4
        for label in ("openai/gpt-4o-mini", "assistant", "ann"):
            (line,) = [each for each in lines if each.startswith(label)]
            assert line.split()[1] == total
            assert line.endswith("█" * 8)
        days = [line.split() for line in lines if line.startswith("20")]
        assert [day for day, *_ in days] == [str(start + timedelta(days=number)) for number in range(4)]
        assert [cost for _, cost, *_ in days] == ["0", "0", "0", total]


async def test_pages_are_read_to_the_end_and_written_in_groups(
    many_sessions: tuple[FakeBilling, dict[str, str]], tmp_path: Path
) -> None:
    """All of them as of the same time; a file has a row group for each ten thousand rows."""
    billing, environment = many_sessions
    path = tmp_path / "usage.parquet"
    code, _, err = await _run("--by", "session", "--output", str(path), **environment)

    assert (code, err) == (0, "")
    assert billing.as_of == [None, *[datetime(2026, 11, 29, 12, tzinfo=UTC)] * 3]
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [_PAGE, _PAGE, 1_000]
    assert sum(file.read()["cost_usd"].to_pylist()) == Decimal(_COST) * _ROWS
    assert list(tmp_path.iterdir()) == [path]


async def test_table_has_the_costliest_and_the_sum_of_the_others(
    many_sessions: tuple[FakeBilling, dict[str, str]],
) -> None:
    """Rounded amounts and open calls are marked, and names cannot control the terminal."""
    _, environment = many_sessions
    code, out, err = await _run("--by", "session", "--top", "2", "--width", "60", **environment)

    assert (code, err) == (0, "")
    heading, first, second, others, total = out.split("\n\n")[1].splitlines()
    assert heading.split()[:3] == ["session", "cost", "USD"]
    assert "\x1b" not in out
    assert first.split()[:2] == ["session-0·[2J", "<0.000000000001+"]
    assert second.split()[:2] == ["session-1·[2J", "<0.000000000001"]
    assert others.split()[:2] == ["others", "(20,998)"]
    assert total.split()[:2] == ["total", "<0.000000000001+"]
    assert "rounded" in out
    assert "1 unresolved (without an upper bound)" in " ".join(out.split())


async def test_failure_is_one_line_and_leaves_the_file(service: Service, usage: Run, tmp_path: Path) -> None:
    """A key without the scope, groups that do not go together, a time that is none, a missing file name."""
    kept = tmp_path / "usage.csv"
    kept.write_text("before")
    known = {"GODOTY_LISTEN": service.target, "GODOTY_API_KEY": service.api_key}
    code, out, err = await _run_anew("--output", str(kept), **known)
    assert (code, out) == (1, "")
    assert err.startswith("godoty-usage: SCOPE_MISSING: ")

    for arguments, said in (
        (("--by", "day", "--by", "month"), "INVALID_FIELD"),
        (("--from", "yesterday"), "yesterday: must be a time such as 2026-03-01"),
        (("--zone", "Mars/Olympus"), "--zone Mars/Olympus: must be the IANA name"),
        (("--format", "parquet"), "--output usage.parquet"),
    ):
        code, _, err = await usage(*arguments)
        assert (code, err.count("\n")) == (1, 1)
        assert said in err

    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("usage.csv", "before")]

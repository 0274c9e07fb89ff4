"""The roll-ups of a tenant, maintained by two servers, and a full scan in Python to compare them with."""

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any
from zoneinfo import ZoneInfo

from godoty_service.ids import new_id
from godoty_service.ledger.codec import entry_to_document
from godoty_service.ledger.entries import Adjustment, CallPurpose, CostSource, ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.states import CURRENT_RULE, CallState
from godoty_service.mongo.client import Database
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.usage.calendar import TimeGroup
from godoty_service.usage.entries import UsageEntries
from godoty_service.usage.entry_scan import ScanLimits
from godoty_service.usage.grouping import Group
from godoty_service.usage.query import UsageQueries, UsageQuery, UsageReport
from godoty_service.usage.rollup_job import RollupJob
from godoty_service.usage.rollup_store import RollupStore
from godoty_service.usage.verification import verify_usage
from godoty_service.users.references import UserReferences
from godoty_service.users.stored_names import StoredNames
from tests.integration.billing.faults import FaultInjector, FaultyCollection

Document = dict[str, Any]


LIMITS = ScanLimits(piece=7, entries=1_000_000)  # small pieces, so that most reports are made of several


_USERS = ("ann", "bob")
_PIECE = 1_000  # entries in one operation on a busy database


async def _none() -> list[str]:
    """Return the servers of schema 1 that run."""
    return []


class Server:
    """The roll-up job, queries and ledger of one server."""

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        now: Callable[[], Awaitable[datetime]] | None = None,
        limits: ScanLimits = LIMITS,
    ) -> None:
        self.faults = FaultInjector()
        self.ledger = Ledger(database.collection("ledger"))
        self.database = database
        self.entries = entries = UsageEntries(FaultyCollection(database.collection("ledger"), self.faults))
        self.rollups = RollupStore(FaultyCollection(database.collection("usage_rollups"), self.faults))
        self.rollup_job = RollupJob(
            FaultyCollection(database.collection("usage_rollup_state"), self.faults),
            entries=entries,
            rollups=self.rollups,
            now=now or database.now,
            owner=name,
        )
        self.users = UserReferences(database.collection("users"))
        self.stored_names = StoredNames(database, self.users, old_servers=_none, owner=name)
        self.query = UsageQueries(
            database=database,
            rollup_job=self.rollup_job,
            rollups=self.rollups,
            entries=entries,
            users=self.users,
            limits=limits,
        )

    async def differences(self, tenant_id: str | None = None, *, piece: int = 3) -> list[str]:
        """Return the differences that verification finds, in pieces of `piece` entries."""
        found = verify_usage(
            database=self.database,
            entries=self.entries,
            rollups=self.rollups,
            rollup_job=self.rollup_job,
            tenant_id=tenant_id,
            piece=piece,
        )
        return [each.what async for each in found]


def usage_query(
    start: datetime,
    end: datetime,
    *groups: Group,
    zone: str = "UTC",
    as_of: datetime | None = None,
) -> UsageQuery:
    """Return a query."""
    return UsageQuery(start=start, end=end, groups=groups, zone=ZoneInfo(zone), as_of=as_of)


@dataclass
class Sum:
    """A sum, computed without the service."""

    cost: Decimal = Decimal(0)
    bound: Decimal = Decimal(0)
    usage: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    pending: int = 0
    unresolved: int = 0
    unbounded: int = 0
    turns: int = 0

    def __bool__(self) -> bool:
        return self != Sum()


def scan(documents: list[Document], query: UsageQuery) -> dict[tuple[str, ...], Sum]:
    """Return the sums of a query as of now, from all ledger entries one by one."""
    sums: dict[tuple[str, ...], Sum] = defaultdict(Sum)
    first: dict[tuple[str, str], str] = {}
    for each in sorted((each for each in documents if each["kind"] == "call"), key=lambda each: each["number"]):
        if each["rule"] == 1 or each["state"] != "void":
            first.setdefault((each["session_uid"], each["turn_id"]), each["_id"])
    firsts = set(first.values())
    calls = {each["_id"]: each for each in documents if each["kind"] == "call"}
    with localcontext(prec=200):
        for each in documents:
            call = each if each["kind"] == "call" else calls[each["corrects"]]
            if query.start <= call["start_time"] < query.end:
                _count(sums[_keys(call, query)], each, opens_turn=each["_id"] in firsts)
    return {key: each for key, each in sums.items() if each}


def total(sums: Iterable[Sum]) -> tuple[Decimal, int]:
    """Return the cost and the number of turns of all sums."""
    sums = list(sums)
    with localcontext(prec=200):
        return sum((each.cost for each in sums), start=Decimal(0)), sum(each.turns for each in sums)


def _keys(call: Document, query: UsageQuery) -> tuple[str, ...]:
    requested = call.get("requested_id") or call["requested_model"]
    named = {
        "model": call.get("served_model") or requested,
        "provider": call.get("provider") or "",
        "agent": call["agent"],
        "agent_version": f"{call['agent']}@{call['agent_version']}" if "agent_version" in call else call["agent"],
        "user": call.get("user") or call.get("user_reference", "").rpartition("_")[2],
        "session": call["session_id"],
        "api_key": call.get("api_key_id") or "",
    }
    return tuple(
        label(call["start_time"], each, query.zone) if isinstance(each, TimeGroup) else named[each.value]
        for each in query.groups
    )


def label(time: datetime, group: TimeGroup, zone: ZoneInfo) -> str:
    local = time.astimezone(zone)
    if group is TimeGroup.HOUR:
        begin = time.replace(minute=time.minute // 15 * 15, second=0, microsecond=0)
        while _hour(begin - timedelta(minutes=15), zone) == _hour(time, zone):
            begin -= timedelta(minutes=15)
        return begin.astimezone(zone).isoformat()
    day = local.date().replace(day=1) if group is TimeGroup.MONTH else local.date()
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1)  # walk to the first moment of it
    while begin.astimezone(zone).date() < day:
        begin += timedelta(minutes=15)
    return begin.astimezone(zone).isoformat()


def _hour(time: datetime, zone: ZoneInfo) -> tuple[Any, ...]:
    local = time.astimezone(zone)
    return local.date(), local.hour, local.utcoffset()


def _count(total: Sum, each: Document, *, opens_turn: bool) -> None:
    total.turns += opens_turn
    if each["kind"] == "call":
        total.calls += each["state"] != "void"
        total.pending += each["state"] == "pending"
        if each["state"] == "unresolved":
            total.unresolved += 1
            total.unbounded += "upper_bound" not in each
            total.bound += each["upper_bound"].to_decimal() if "upper_bound" in each else 0
    elif each.get("resolves"):
        total.unresolved -= 1
        total.unbounded -= "bound" not in each
        total.bound -= each["bound"].to_decimal() if "bound" in each else 0
    settled = each["kind"] == "adjustment" or each["state"] == "settled"
    total.cost += each["cost"].to_decimal() if settled else 0
    if settled or (each["state"] == "unresolved" and each["rule"] == 2):
        for name, count in each.get("usage", {}).items():
            total.usage[name] = total.usage.get(name, 0) + count


def report_sums(report: UsageReport) -> dict[tuple[str, ...], Sum]:
    """Return the sums of a report in the same form."""
    return {row.keys: _shown(row.totals) for row in report.rows}


def _shown(totals: Any) -> Sum:
    usage = {name: getattr(totals.usage, name) for name in TokenUsage.__slots__}
    return Sum(
        cost=totals.cost,
        bound=totals.unresolved_bound,
        usage={name: count for name, count in usage.items() if count is not None},
        calls=totals.model_calls,
        pending=totals.pending_calls,
        unresolved=totals.unresolved_calls,
        unbounded=totals.unbounded_calls,
        turns=totals.turns,
    )


class Tenant:
    """A tenant whose ledger a test writes."""

    def __init__(self, database: Database, ledger: Ledger, chance: random.Random) -> None:
        self.tenant_id = new_id("tnt")
        self.database = database
        self.ledger = ledger
        self.chance = chance
        self.calls: dict[str, ModelCall] = {}
        self.turns: dict[str, str] = {}
        self.rules: tuple[int, ...] = (1, CURRENT_RULE)  # those of new turns
        self._rule: dict[str, int] = {}
        self.references: dict[str, str] = {}  # of end users, by name

    async def documents(self) -> list[Document]:
        """Return all of its ledger documents."""
        return await self.database.collection("ledger").find({"tenant_id": self.tenant_id})

    async def name_users(self) -> None:
        """Give two end users references, which end with their names."""
        users = [{"_id": f"user_{self.tenant_id}_{name}", "tenant_id": self.tenant_id, "name": name} for name in _USERS]
        await self.database.collection("users").insert_many(users)
        self.references = {each["name"]: each["_id"] for each in users}

    def _user(self) -> tuple[str | None, str | None]:
        """Return the name or the reference of an end user, or neither."""
        name = self.chance.choice([None, *_USERS])
        if name in self.references and self.chance.random() < 0.5:
            return None, self.references[name]
        return name, None

    async def open(self, start: datetime, **known: Any) -> ModelCall:
        """Insert a pending call."""
        chance = self.chance
        session = chance.choice(["s1", "s2", "s3"])
        if session not in self.turns or chance.random() < 0.5:
            self.turns[session] = new_id("turn")
        model = known.get("requested_model", chance.choice(["a/one", "a/two", "a/two:nitro", "b/three"]))
        listed = model.removesuffix(":nitro")
        user, reference = self._user()
        turn_id = known.get("turn_id", self.turns[session])
        call = ModelCall(
            call_id=new_id("call"),
            tenant_id=self.tenant_id,
            session_uid=f"{self.tenant_id}.{session}",
            session_id=session,
            turn_id=self.turns[session],
            number=1,
            state=CallState.PENDING,
            requested_model=model,
            requested_id=None if listed == model else listed,
            upper_bound=chance.choice([None, Decimal("0.5"), Decimal("0.0000000000000000000001")]),
            provider_key_id="key",
            start_time=start,
            agent=chance.choice(["assistant", "clerk"]),
            agent_version=(None, 0, 2)[len(self.calls) % 3],
            user=user,
            user_reference=reference,
            purpose=CallPurpose.AGENT,
            api_key_id=chance.choice([None, "key-1", "key-2"]),
            owner="server",
            rule=self._rule.setdefault(turn_id, chance.choice(self.rules)),
        )
        written = await self.ledger.insert(replace(call, **known))
        self.calls[written.call_id] = written
        return written

    async def settled(
        self, starts: Sequence[datetime], *, rolled_up: bool = False, suffix: str = "", user: str | None = None
    ) -> None:
        """Insert settled calls, each in a session of its own, all at once.

        Args:
            starts: The start of each.
            suffix: Ends the id of each session.
            user: The end user of all.
            rolled_up: Mark them as rolled up. The roll-ups do not include them: query by session.
        """
        documents = [
            entry_to_document(
                ModelCall(
                    call_id=new_id("call"),
                    tenant_id=self.tenant_id,
                    session_uid=(session := new_id("ses")),
                    session_id=session + suffix,
                    turn_id=new_id("turn"),
                    number=1,
                    state=CallState.SETTLED,
                    requested_model="a/one",
                    usage=TokenUsage(input_tokens=1),
                    user=user,
                    cost=Decimal("0.000001"),
                    cost_source=CostSource.BILLED,
                    provider_key_id="key",
                    start_time=start,
                    settle_time=start,
                    agent="assistant",
                    owner="server",
                )
            )
            for start in starts
        ]
        marks: Document = {} if rolled_up else {"rollup_state": "ready"}
        for start in range(0, len(documents), _PIECE):
            piece = documents[start : start + _PIECE]
            await self.database.collection("ledger").insert_many([each | marks for each in piece])

    async def delete_entries(self) -> None:
        """Delete the tenant's entries, which are many."""
        ledger = self.database.collection("ledger")
        while found := await ledger.find({"tenant_id": self.tenant_id}, limit=_PIECE, fields={"_id": 1}):
            await ledger.delete_many({"_id": {"$in": [each["_id"] for each in found]}})

    async def live(self) -> None:
        """Write a heartbeat of the server of these calls, so that a server beside the test does not recover them."""
        later = datetime.now(UTC) + timedelta(hours=1)
        await self.database.collection("replicas").update_one(
            {"_id": "server"}, {"$set": {"heartbeat_time": later}}, upsert=True
        )

    async def defer(self, call: ModelCall) -> None:
        """Defer a call to reconciliation, with the values that its stream reported."""
        known = replace(call, served_model="c/four", provider="One", usage=TokenUsage(input_tokens=3))
        await self.ledger.defer(known)
        await self.ledger.postpone(known, due=datetime.now(UTC) + timedelta(days=1))
        self.calls[call.call_id] = known

    async def close(self, call: ModelCall, settle: datetime, *, state: CallState | None = None) -> ModelCall:
        """Close a call."""
        chance = self.chance
        state = state or chance.choice([*[CallState.SETTLED] * 4, CallState.UNRESOLVED, CallState.VOID])
        known: Document = {"state": state, "settle_time": settle}
        known["served_model"] = chance.choice([None, "a/one", "c/four"]) or call.served_model
        known["provider"] = chance.choice([None, "One", "Two"]) or call.provider
        if state is CallState.SETTLED:
            counts = {name: chance.randrange(1000) for name in chance.sample(TokenUsage.__slots__, 4)}
            known["cost"] = Decimal(chance.randrange(10**8)).scaleb(-chance.choice([2, 8, 12, 20, 26]))
            usage = chance.choice([None, TokenUsage(**counts)]) or call.usage
            known |= {"cost_source": CostSource.BILLED, "usage": usage}
        closed = replace(call, **known)
        assert await self.ledger.close(closed)
        self.calls[call.call_id] = closed
        return closed

    async def adjust(self, call: ModelCall, time: datetime) -> Adjustment:
        """Resolve an unresolved call, or correct a settled one."""
        resolves = call.state is CallState.UNRESOLVED
        return await self.ledger.insert(
            Adjustment(
                entry_id=new_id("adj"),
                tenant_id=call.tenant_id,
                session_uid=call.session_uid,
                session_id=call.session_id,
                turn_id=call.turn_id,
                number=1,
                corrects=call.call_id,
                cost=Decimal(self.chance.randrange(-1000, 1000)).scaleb(-4),
                usage=self.chance.choice([None, TokenUsage(input_tokens=5)]),
                resolves=resolves,
                bound=call.upper_bound if resolves else None,
                model=call.model,
                provider=call.provider,
                agent=call.agent,
                agent_version=call.agent_version,
                purpose=call.purpose,
                api_key_id=call.api_key_id,
                user=call.user,
                user_reference=call.user_reference,
                call_time=call.start_time,
                time=time,
                why="a test",
                by="ann",
            )
        )

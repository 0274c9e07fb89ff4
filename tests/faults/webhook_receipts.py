"""The webhooks of the fault load: what their receiver got, compared with what the database says has happened."""

import asyncio
import base64
from collections import defaultdict
from datetime import timedelta
from typing import Any, Final

from godoty_service.bootstrap.components import Components
from godoty_service.webhooks.changes import Values, WebhookTerms
from tests.faults.cluster import Cluster
from tests.support.receiver import Received, Receiver, status
from tests.support.service import PATIENCE

Fact = tuple[str, str]  # an event's type, and the turn or the call that it reports

_KEY = base64.b64encode(b"k" * 32).decode()
_TYPES: Final = ("turn.finished", "turn.action_required", "call.unresolved")
_REFUSED: Final = 9  # of this number of requests the receiver refuses one
# An attempt is short, as the lease of a killed server is longer than it.
WEBHOOK_SETTINGS: dict[str, Any] = {"encryption_keys": _KEY, "webhook_networks": "127.0.0.0/8"}
WEBHOOK_ENVIRONMENT = {
    "GODOTY_ENCRYPTION_KEYS": _KEY,
    "GODOTY_WEBHOOK_NETWORKS": "127.0.0.0/8",
    "GODOTY_WEBHOOK_INTERVAL": "0.2",
    "GODOTY_WEBHOOK_RETRY_DELAY": "0.2",
    "GODOTY_WEBHOOK_TIMEOUT": "2",
}


class WebhookReceipts:
    """A receiver of both tenants' webhooks, which refuses some requests."""

    def __init__(self, receiver: Receiver) -> None:
        """Create it.

        Args:
            receiver: Receives.
        """
        self._receiver = receiver
        self._secrets: dict[str, str] = {}
        self._receiver.answer = self._answer

    @property
    def number(self) -> int:
        """The number of requests that came."""
        return len(self._receiver.received)

    async def subscribe(self, components: Components, tenant_id: str) -> None:
        """Apply the webhook of a tenant; servers that start afterwards know it from the beginning."""
        terms = WebhookTerms(name="load", url=self._receiver.url(f"/{tenant_id}"), event_types=_TYPES)
        _, _, secret = await components.webhooks.changes.apply(
            tenant_id, terms, etag="", rotation=None, record=_unrecorded
        )
        self._secrets[tenant_id] = secret

    async def mismatches(self, cluster: Cluster) -> list[str]:
        """Wait until all events have arrived; return a description of each that is missing, invented or changed."""
        await _end_leases(cluster)
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while (missing := await _facts(cluster.components) - self._facts()) or await _marked(cluster.components):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.2)
        invented = self._facts() - await _facts(cluster.components)
        found = [f"no event {name} of {source}" for name, source in sorted(missing)]
        found += [f"the event {name} of {source} never happened" for name, source in sorted(invented)]
        return found + self._changed() + self._unordered() + await self._forged(cluster.components)

    async def _answer(self, _: Received) -> bytes:
        return status(500 if self.number % _REFUSED == 0 else 204)

    def _facts(self) -> set[Fact]:
        return {_fact(each) for each in self._receiver.received}

    def _changed(self) -> list[str]:
        """Return the facts that came under several ids, and the ids that came with several bodies."""
        ids, bodies = defaultdict(set), defaultdict(set)
        for each in self._receiver.received:
            ids[_fact(each)].add(each.event_id)
            bodies[each.event_id].add(each.body)
        several = [f"{fact} has the ids {sorted(found)}" for fact, found in ids.items() if len(found) > 1]
        return several + [f"{each} has {len(found)} bodies" for each, found in bodies.items() if len(found) > 1]

    def _unordered(self) -> list[str]:
        """Return the turns that asked before they had ended."""
        first: dict[Fact, int] = {}
        for place, each in enumerate(self._receiver.received):
            first.setdefault(_fact(each), place)
        asked = {turn_id: place for (name, turn_id), place in first.items() if name == "turn.action_required"}
        return [
            f"{turn_id} asked before its end was delivered"
            for turn_id, place in asked.items()
            if first.get(("turn.finished", turn_id), place) >= place
        ]

    async def _forged(self, components: Components) -> list[str]:
        """Return the requests that are not signed by their tenant's secret, or at another time than the database's."""
        latest = (await components.database.now() + timedelta(seconds=2)).timestamp()
        return [
            f"{each.event_id} is not signed as it must be: {each.headers}"
            for each in self._receiver.received
            if not each.is_signed_by(self._secrets[each.path.removeprefix("/")])
            or each.data["tenant_id"] != each.path.removeprefix("/")
            or not latest - 3600 < int(each.headers["webhook-timestamp"]) < latest
        ]


async def _unrecorded(_: Values | None, __: Values | None) -> None:
    """Record nothing."""


def _fact(received: Received) -> Fact:
    return received.event["type"], received.data.get("call_id") or received.data["turn_id"]


async def _facts(components: Components) -> set[Fact]:
    """Return what has happened: the ends of turns by their logs, and the unresolved calls of the ledger."""
    logs, ledger = components.database.collection("turn_logs"), components.database.collection("ledger")
    fields = {"turn_id": 1, "stop": {"$last": "$events.finished.stop"}}
    ended = await logs.find({"ended": True}, fields=fields)
    unresolved = await ledger.find({"state": "unresolved"}, fields={"_id": 1})
    return {
        *(("turn.finished", each["turn_id"]) for each in ended),
        *(("turn.action_required", each["turn_id"]) for each in ended if each.get("stop") == "action_required"),
        *(("call.unresolved", each["_id"]) for each in unresolved),
    }


async def _marked(components: Components) -> int:
    """Return the number of marks of what is not published yet."""
    names, marked = ("turns", "turn_logs", "ledger"), {"outbox": {"$exists": True}}
    return sum([await components.database.collection(each).count(marked) for each in names])


async def _end_leases(cluster: Cluster) -> None:
    """Let the time pass after which the webhooks of killed servers are taken over."""
    past = await cluster.components.database.now() - timedelta(hours=1)
    dead = {"lease_owner": {"$in": [*cluster.killed]}}
    await cluster.components.database.collection("webhooks").update_many(dead, {"$set": {"lease_until": past}})

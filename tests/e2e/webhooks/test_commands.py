"""`godoty webhook`, by way of a running server."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.e2e.webhooks.conftest import Tenant
from tests.support.command import Command
from tests.support.receiver import Receiver
from tests.support.service import eventually, soon

Godoty = Callable[..., Awaitable[str]]


@pytest.fixture
def godoty(tenant: Tenant, tmp_path: Path) -> Godoty:
    """Runs a command; returns its output."""

    async def run(*arguments: str, code: int = 0) -> str:
        out = tmp_path / "out"
        out.unlink(missing_ok=True)
        command = Command("webhook", *arguments, environment=environment(tenant), out=out, err=out)
        assert await command.wait() == code, out.read_text()
        return out.read_text()

    return run


def environment(tenant: Tenant) -> dict[str, str]:
    """Return the environment of a command."""
    return {**os.environ, "GODOTY_LISTEN": tenant.service.target, "GODOTY_API_KEY": tenant.key}


async def test_webhook_is_applied_listed_redelivered_and_deleted(
    tenant: Tenant, receiver: Receiver, godoty: Godoty
) -> None:
    """Its secret is printed once, and it signs."""
    arguments = ("apply", "billing", "--url", receiver.url(), "--event", "turn.finished")
    applied, again = await godoty(*arguments), await godoty(*arguments)
    await tenant.caller.converse("hello")
    (delivery,) = await tenant.delivered(1, name="billing")

    assert applied.startswith("billing applied\nsecret: whsec_")
    assert again == "billing unchanged\n"
    assert receiver.received[0].is_signed_by(applied.split()[-1])
    assert receiver.url() in await godoty("list")
    assert delivery.event_id in await godoty("deliveries", "billing", "--state", "delivered")
    assert await godoty("redeliver", "billing", delivery.event_id) == "pending\n"
    await soon(lambda: len(receiver.received) == 2)
    rotated = await godoty(*arguments, "--rotate-secret", "--overlap", "60")
    assert "secret: whsec_" in rotated
    assert await godoty("delete", "billing") == "deleted\n"
    assert "WEBHOOK_NOT_FOUND" in await godoty("deliveries", "billing", code=1)


async def test_listen_prints_verified_events_and_deletes_its_webhook(tenant: Tenant, tmp_path: Path) -> None:
    """For as long as it runs, the tenant has a webhook for it."""
    out = tmp_path / "out"
    command = Command("webhook", "listen", environment=environment(tenant), out=out, err=out)
    await soon(lambda: out.exists() and "Listening on" in out.read_text())
    turn = await tenant.caller.converse("hello", session_id="a:bug:b")
    await soon(lambda: "session_totals" in out.read_text() and out.read_text().count("}") > 2)
    command.send_signal(signal.SIGTERM)

    assert await command.wait() == 0
    printed = out.read_text()
    assert "turn.finished evt_" in printed
    assert turn.responses[0].turn_id in printed
    assert '"a:bug:b"' in printed  # and not an emoji
    assert "refused" not in printed
    assert list((await tenant.call("ListWebhooks")).webhooks) == []


async def test_listen_refuses_what_its_secret_did_not_sign(tenant: Tenant, tmp_path: Path) -> None:
    """And the server attempts it again."""
    out = tmp_path / "out"
    known = {**environment(tenant), "GODOTY_WEBHOOK_SECRET": "whsec_AAAA"}
    command = Command("webhook", "listen", environment=known, out=out, err=out)
    await soon(lambda: out.exists() and "Listening on" in out.read_text())
    await tenant.apply(out.read_text().split()[2])
    await tenant.caller.converse("hello")
    await soon(lambda: "refused: No signature" in out.read_text())

    async def refused() -> bool:
        (delivery,) = await tenant.deliveries()
        return delivery.last_status == 401

    assert await eventually(refused)
    command.send_signal(signal.SIGTERM)
    assert await command.wait() == 0

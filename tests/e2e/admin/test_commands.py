"""`godoty tenant | key | admin`: the same changes as AdminService makes, from the command line."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from godoty_service.cli.context import user
from godoty_service.errors import GodotyError, ProviderKeysOff
from godoty_service.tenancy.encryption import SecretBox
from tests.e2e.admin.conftest import ENCRYPTION_KEY, Godoty
from tests.support.caller import Caller
from tests.support.service import Service, format_amount


def changes(service: Service, tenant_id: str) -> list[tuple[str, str]]:
    """Return the audit log, oldest first: author and action."""
    found = service.database["admin_changes"].find({"tenant_id": tenant_id}).sort("_id")
    return [(each["by"], each["action"]) for each in found]


def test_each_command_is_recorded(godoty: Godoty, service: Service) -> None:
    """With the user who ran it; `admin changes` prints it."""
    tenant = godoty("tenant", "create", "Ada [bold]& Sons").strip()
    key = godoty("key", "create", tenant, "--scope", "billing").strip()
    key_id = key.split("_")[1]
    rotated = godoty("key", "rotate", tenant, key_id, "--overlap", "60").strip()
    godoty("key", "revoke", tenant, key_id)
    godoty("tenant", "policy", "set", tenant, "--turns-per-minute", "5")
    godoty("tenant", "provider-key", "set", tenant, typed="sk-or-v1-typed-in\n")
    godoty("tenant", "provider-key", "set", tenant, "--remove")

    actions = [
        "CreateTenant",
        "CreateApiKey",
        "RotateApiKey",
        "RevokeApiKey",
        "UpdatePolicy",
        "SetProviderKey",
        "SetProviderKey",
    ]
    assert changes(service, tenant) == [(user(), action) for action in actions]
    printed = godoty("admin", "changes", "--tenant", tenant)
    assert [line.split("│")[4].strip() for line in printed.splitlines() if tenant in line] == actions[::-1]
    assert "sk-or-v1-typed-in" not in printed
    assert key.split("_", 2)[2] not in printed
    listed = godoty("key", "list", tenant)
    assert key_id in listed
    assert rotated.split("_")[1] in listed
    assert "Ada [bold]& Sons" in godoty("tenant", "list")


def test_policy_is_set_by_options_and_by_file(godoty: Godoty, service: Service, tmp_path: Path) -> None:
    """Options change single fields; a file replaces all; the output of `show` can be set."""
    tenant = godoty("tenant", "create", "acme").strip()
    options: list[str] = ["--allow", "openai/*", "--allow", "anthropic/*", "--model", "openai/gpt-4o-mini"]
    options += ["--fallback", "openai/gpt-4o", "--max-output-tokens", "9", "--zdr", "--provider", '{"sort": "price"}']
    options += ["--budget", "day=0.5", "--budget", "month=10:hard"]
    shown = json.loads(godoty("tenant", "policy", "set", tenant, *options))
    etag = shown.pop("etag")
    assert shown == {
        "allowed_models": ["openai/*", "anthropic/*"],
        "default_model": "openai/gpt-4o-mini",
        "default_fallback_models": ["openai/gpt-4o"],
        "max_output_tokens": 9,
        "provider_json": '{"sort": "price"}',
        "zero_data_retention": True,
        "budgets": [
            {"window": "BUDGET_WINDOW_DAY", "limit_usd": "0.5"},
            {"window": "BUDGET_WINDOW_MONTH", "limit_usd": "10", "hard": True},
        ],
    }
    assert json.loads(godoty("tenant", "policy", "show", tenant)) == shown | {"etag": etag}

    options = ["--budget", "day=", "--budget", "month=11", "--no-zdr", "--max-output-tokens", "none", "--provider", ""]
    options += ["--turns-per-minute", "0", "--fallback", "", "--etag", etag]
    changed = json.loads(godoty("tenant", "policy", "set", tenant, *options))
    assert changed.pop("etag") != etag
    assert changed == {
        "allowed_models": ["openai/*", "anthropic/*"],
        "default_model": "openai/gpt-4o-mini",
        "turns_per_minute": 0,
        "budgets": [{"window": "BUDGET_WINDOW_MONTH", "limit_usd": "11"}],
    }
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(shown))
    whole = json.loads(godoty("tenant", "policy", "set", tenant, "--file", str(file)))
    emptied = json.loads(godoty("tenant", "policy", "set", tenant, "--file", "-", typed="{}"))
    assert (whole | {"etag": ""}, emptied.keys()) == (shown | {"etag": ""}, {"etag"})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("policy", "show", "tnt_none"), "There is no tenant tnt_none"),
        (("policy", "set", "TENANT", "--turns-per-minute", "-1"), "policy.turns_per_minute: must not be negative"),
        (("policy", "set", "TENANT", "--provider", '{"a": 1}'), "policy.provider_json: a: Extra inputs"),
        (("policy", "set", "TENANT", "--budget", "year=1"), "--budget year=1: must be like"),
        (("policy", "set", "TENANT", "--budget", "day=1:soft"), "must be like"),
        (("policy", "set", "TENANT", "--budget", "day=1e3"), r"policy.budgets[0].limit_usd: must be"),
        (("policy", "set", "TENANT", "--model", "openai/gpt-99"), "has no model"),
        (("policy", "set", "TENANT", "--file", "-"), "-: "),
        (("create", " "), "display_name: must have"),
        (("provider-key", "set", "TENANT"), "no key was given"),
    ],
)
def test_invalid_values_are_refused_by_the_same_rules(
    godoty: Godoty, service: Service, arguments: tuple[str, ...], expected: str
) -> None:
    """With the gRPC service's texts, and nothing is recorded."""
    named = [service.tenant_id if each == "TENANT" else each for each in arguments]
    with pytest.raises((GodotyError, ValueError)) as caught:
        godoty("tenant", *named, typed="nonsense" if "--file" in named else "")

    assert expected in str(caught.value)
    assert changes(service, service.tenant_id) == []


def _sealed(service: Service, database: str) -> bytes:
    """Return the stored document of the only key."""
    (document,) = service.backends.mongo[database]["provider_keys"].find()
    return bytes(document["sealed"])


def test_keys_are_re_encrypted(godoty: Godoty, service: Service, new_database: str) -> None:
    """With the first encryption key, after which the old one decrypts nothing; it is recorded, and done once."""
    new = base64.b64encode(bytes(range(32, 64))).decode()
    alone = {"GODOTY_MONGODB_DATABASE": new_database}
    tenant = godoty("tenant", "create", "acme", **alone).strip()
    godoty("tenant", "provider-key", "set", tenant, typed="sk-or-v1-typed-in\n", **alone)
    before = _sealed(service, new_database)
    both = {**alone, "GODOTY_ENCRYPTION_KEYS": f"{new},{ENCRYPTION_KEY}"}
    outputs = [godoty("tenant", "provider-key", "reseal", **both) for _ in range(2)]
    after = _sealed(service, new_database)

    assert outputs == [f"{keys} keys and the secrets of 0 MCP servers and 0 webhooks re-encrypted\n" for keys in (1, 0)]
    assert SecretBox.of(ENCRYPTION_KEY).open(before, owner=tenant) == "sk-or-v1-typed-in"
    assert SecretBox.of(new).open(after, owner=tenant) == "sk-or-v1-typed-in"
    with pytest.raises(ProviderKeysOff):
        SecretBox.of(ENCRYPTION_KEY).open(after, owner=tenant)
    recorded = service.backends.mongo[new_database]["admin_changes"].find({"action": "ResealProviderKeys"})
    assert [(each["by"], each["tenant_id"]) for each in recorded] == [(user(), "")] * 2


def test_tenant_is_shown(godoty: Godoty, service: Service) -> None:
    """Its name, its policy, and whether it has its own OpenRouter key."""
    tenant = godoty("tenant", "create", "Ada & Sons").strip()
    godoty("tenant", "policy", "set", tenant, "--turns-per-minute", "5", "--budget", "day=0.50")
    before: dict[str, Any] = json.loads(godoty("tenant", "show", tenant))
    godoty("tenant", "provider-key", "set", tenant, typed="sk-or-v1-typed-in\n")
    after: dict[str, Any] = json.loads(godoty("tenant", "show", tenant))

    assert (before["tenant"]["tenant_id"], before["tenant"]["display_name"]) == (tenant, "Ada & Sons")
    budgets = [{"window": "BUDGET_WINDOW_DAY", "limit_usd": "0.5"}]
    assert before["policy"].pop("etag") == after["policy"].pop("etag")
    assert before["policy"] == {"turns_per_minute": 5, "budgets": budgets}
    assert "has_provider_key" not in before
    assert after == before | {"has_provider_key": True}


async def test_budget_status_is_shown(godoty: Godoty, caller: Caller) -> None:
    """The limit, the amounts spent and reserved, in plain decimals."""
    service = caller.service
    assert "month" not in await asyncio.to_thread(godoty, "tenant", "budget", service.tenant_id)
    await caller.converse("hello")
    options = ("--budget", "month=12.50:hard", "--budget", "total=1000")
    await asyncio.to_thread(godoty, "tenant", "policy", "set", service.tenant_id, *options)
    printed = await asyncio.to_thread(godoty, "tenant", "budget", service.tenant_id)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]

    spent = format_amount(service.invoiced("talk"))
    assert [(row[0], *row[2:]) for row in rows] == [
        ("month", "12.5", spent, "0", "hard"),
        ("total", "1000", spent, "0", ""),
    ]
    assert [row[1][:10] for row in rows] == [f"{datetime.now(UTC):%Y-%m}-01", ""]

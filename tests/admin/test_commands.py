"""`godoty tenant | key | admin`: the same work as AdminService does, by hand."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from godoty_service.cli.main import app
from godoty_service.cli.session import user
from godoty_service.errors import GodotyError
from tests.admin.conftest import ENCRYPTION_KEY
from tests.service.service import Service

Godoty = Callable[..., str]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands set logging up; put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def godoty(service: Service, capsys: pytest.CaptureFixture[str]) -> Godoty:
    """Runs a command on the shared server's database, and gives what it printed."""
    environment = {
        "GODOTY_MONGODB_URI": service.surroundings.mongodb_uri,
        "GODOTY_MONGODB_DATABASE": service.database.name,
        "GODOTY_ENCRYPTION_KEYS": ENCRYPTION_KEY,
    }

    def run(*arguments: str, typed: str | None = None) -> str:
        outcome = CliRunner().invoke(app, arguments, env=environment, input=typed)
        if outcome.exception is not None:
            raise outcome.exception
        return outcome.output + capsys.readouterr().out

    return run


def changes(service: Service, tenant_id: str) -> list[tuple[str, str]]:
    """What is recorded, the oldest first: who, and what."""
    found = service.database["admin_changes"].find({"tenant_id": tenant_id}).sort("_id")
    return [(each["by"], each["action"]) for each in found]


def test_each_command_is_recorded(godoty: Godoty, service: Service) -> None:
    """By the user who ran it; `admin changes` prints it."""
    tenant = godoty("tenant", "create", "Ada [bold]& Sons").strip()
    key = godoty("key", "issue", tenant, "--scope", "billing").strip()
    key_id = key.split("_")[1]
    rotated = godoty("key", "rotate", tenant, key_id, "--overlap", "60").strip()
    godoty("key", "revoke", tenant, key_id)
    godoty("tenant", "policy", "set", tenant, "--turns-per-minute", "5")
    godoty("tenant", "provider-key", "set", tenant, typed="sk-or-v1-typed-in\n")
    godoty("tenant", "provider-key", "set", tenant, "--remove")

    actions = ["CreateTenant", "IssueKey", "RotateKey", "RevokeKey", "SetPolicy", "SetProviderKey", "SetProviderKey"]
    assert changes(service, tenant) == [(user(), action) for action in actions]
    printed = godoty("admin", "changes", "--tenant", tenant)
    assert [line.split("│")[3].strip() for line in printed.splitlines() if tenant in line] == actions[::-1]
    assert "sk-or-v1-typed-in" not in printed
    assert key.rsplit("_", 1)[-1] not in printed
    listed = godoty("key", "list", tenant)
    assert key_id in listed
    assert rotated.split("_")[1] in listed
    assert "Ada [bold]& Sons" in godoty("tenant", "list")


def test_a_policy_is_set_by_options_and_by_file(godoty: Godoty, service: Service, tmp_path: Path) -> None:
    """Options change what they name; a file is all of it; what is shown can be set."""
    tenant = godoty("tenant", "create", "somebody").strip()
    options: list[str] = ["--allow", "openai/*", "--allow", "anthropic/*", "--model", "openai/gpt-4o-mini"]
    options += ["--fallback", "openai/gpt-4o", "--max-output-tokens", "9", "--zdr", "--provider", '{"sort": "price"}']
    options += ["--budget", "day=0.5", "--budget", "month=10:hard"]
    shown = json.loads(godoty("tenant", "policy", "set", tenant, *options))
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
    assert json.loads(godoty("tenant", "policy", "show", tenant)) == shown

    options = ["--budget", "day=", "--budget", "month=11", "--no-zdr", "--max-output-tokens", "0", "--provider", ""]
    changed = json.loads(godoty("tenant", "policy", "set", tenant, *options, "--fallback", ""))
    assert changed == {
        "allowed_models": ["openai/*", "anthropic/*"],
        "default_model": "openai/gpt-4o-mini",
        "budgets": [{"window": "BUDGET_WINDOW_MONTH", "limit_usd": "11"}],
    }
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(shown))
    assert json.loads(godoty("tenant", "policy", "set", tenant, "--file", str(file))) == shown
    assert json.loads(godoty("tenant", "policy", "set", tenant, "--file", "-", typed="{}")) == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("policy", "show", "tnt_none"), "There is no tenant tnt_none"),
        (("policy", "set", "TENANT", "--turns-per-minute", "-1"), "policy.turns_per_minute: must not be negative"),
        (("policy", "set", "TENANT", "--provider", '{"a": 1}'), "policy.provider_json: a: Extra inputs"),
        (("policy", "set", "TENANT", "--budget", "year=1"), "--budget year=1: must be like"),
        (("policy", "set", "TENANT", "--budget", "day=1:soft"), "must be like"),
        (("policy", "set", "TENANT", "--budget", "day=1e3"), r"policy.budgets[0].limit_usd: must be"),
        (("policy", "set", "TENANT", "--model", "openai/gpt-99"), "no such model"),
        (("policy", "set", "TENANT", "--file", "-"), "-: "),
        (("create", " "), "name: must have"),
        (("provider-key", "set", "TENANT"), "no key was given"),
    ],
)
def test_what_cannot_be_is_refused_by_the_same_rules(
    godoty: Godoty, service: Service, arguments: tuple[str, ...], said: str
) -> None:
    """In the words of the gRPC service, and nothing is recorded."""
    named = [service.tenant_id if each == "TENANT" else each for each in arguments]
    with pytest.raises((GodotyError, ValueError)) as caught:
        godoty("tenant", *named, typed="nonsense" if "--file" in named else "")

    assert said in str(caught.value)
    assert changes(service, service.tenant_id) == []


def test_keys_are_encrypted_anew(godoty: Godoty, service: Service) -> None:
    """Nothing to do where the first key encrypted all."""
    godoty("tenant", "provider-key", "set", service.tenant_id, typed="sk-or-v1-typed-in\n")

    assert godoty("tenant", "provider-key", "reseal") == "0 encrypted anew\n"

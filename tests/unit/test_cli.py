"""The command line: its output and exit status."""

import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from godoty_service.cli import main
from openrouter_sandbox.mongodb.mongod import free_port
from tests.support.service import Service


@dataclass(frozen=True)
class Outcome:
    """The exit status and the output of a command."""

    code: int
    out: str
    err: str


Godoty = Callable[..., Outcome]


@pytest.fixture
def godoty(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Godoty:
    """Return a function that runs `godoty` on the shared server's database, through its entry point."""

    def run(*arguments: str, **environment: str) -> Outcome:
        known = {
            "GODOTY_MONGODB_URI": service.backends.mongodb_uri,
            "GODOTY_MONGODB_DATABASE": service.database.name,
            "GODOTY_OPENROUTER_BASE_URL": service.backends.sandbox.base_url,
        }
        with monkeypatch.context() as patch:
            for name, value in {**known, **environment}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["godoty", *arguments])
            try:
                main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def accepted(service: Service, key: str) -> bool:
    """Return whether the running server accepts a key for a conversation."""
    with grpc.insecure_channel(service.target) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        try:
            stub.ListSessions(pb.ListSessionsRequest(), metadata=(("authorization", f"Bearer {key}"),), timeout=60)
        except grpc.RpcError as error:
            refusals = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            assert error.code() in refusals  # noqa: PT017 - else it is no answer
            return False
    return True


def test_tenant_and_key_are_created_and_revoked(godoty: Godoty, service: Service) -> None:
    """The printed id and key work at once on a running server; a revoked key is refused."""
    made = godoty("tenant", "create", "Ada & Sons")
    tenant_id = made.out.strip()
    assert made == Outcome(0, f"{tenant_id}\n", "")
    assert re.fullmatch(r"tnt_[0-9a-f]+", tenant_id)

    key = godoty("key", "create", tenant_id).out.strip()
    assert re.fullmatch(r"gdt_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", key)
    assert accepted(service, key)
    billing = godoty("key", "create", tenant_id, "--scope", "billing", "--days", "1").out.strip()
    assert not accepted(service, billing)

    assert "revoked" in godoty("key", "revoke", tenant_id, key.split("_")[1]).out
    document = service.database["api_keys"].find_one({"_id": key.split("_")[1]})
    assert document is not None
    assert document["revoke_time"] is not None


def test_audit_trail_names_the_user_of_the_operating_system(godoty: Godoty, service: Service) -> None:
    """Environment variables do not change the recorded user."""
    variables = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER"), "mallory")
    tenant_id = godoty("tenant", "create", "Ada", **variables).out.strip()
    change = service.database["admin_changes"].find_one({"tenant_id": tenant_id})

    assert change is not None
    assert change["by"] == pwd.getpwuid(os.getuid()).pw_name


def test_lists_print_whole_ids(godoty: Godoty, service: Service) -> None:
    """Ids are not truncated, on any output; secrets are not printed."""
    tenant_id = godoty("tenant", "create", "a name that is as long as names of companies sometimes are").out.strip()
    key = godoty("key", "create", tenant_id, "--scope", "converse", "--scope", "billing").out.strip()
    _, key_id, secret = key.split("_", 2)

    assert tenant_id in godoty("tenant", "list").out
    listed = godoty("key", "list", tenant_id).out
    assert key_id in listed
    assert secret not in listed
    assert "converse" in listed
    assert "billing" in listed


@pytest.mark.parametrize(
    "arguments",
    [("key", "create", "tnt_none"), ("key", "list", "tnt_none"), ("key", "revoke", "tnt_none", "0123456789abcdef")],
    ids=" ".join,
)
def test_missing_tenant_is_an_error_of_one_line(godoty: Godoty, arguments: tuple[str, ...]) -> None:
    """Exit status 1, and one line with the error."""
    outcome = godoty(*arguments)

    assert (outcome.code, outcome.out) == (1, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("godoty: ")
    assert "tnt_none" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - asked, not bound
def test_health_is_an_exit_status(godoty: Godoty, service: Service, host: str) -> None:
    """0 if a server serves, even on a wildcard address; 1 if none does."""
    port = service.target.rpartition(":")[2]

    assert godoty("health", GODOTY_LISTEN=f"{host}:{port}") == Outcome(0, "serving\n", "")
    absent = godoty("health", GODOTY_LISTEN=f"{host}:{free_port()}")
    assert absent.code == 1
    assert "not serving" in absent.err


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GODOTY_MONGODB_URI": ""}, "GODOTY_MONGODB_URI"),
        ({}, "OPENROUTER_API_KEY"),
        ({"GODOTY_LEASE": "soon-hunter2"}, "GODOTY_LEASE"),
        (
            {
                "GODOTY_MONGODB_URI": "mongodb://u:hunter2@127.0.0.1:1",
                "GODOTY_STORAGE_TIMEOUT": "0.1",
                "OPENROUTER_API_KEY": "sk-good",
            },
            "database",
        ),
        ({"GODOTY_MONGODB_URI": "hunter2://nonsense"}, "GODOTY_MONGODB_URI"),
    ],
    ids=["no database", "no key", "no number", "no answer", "no address"],
)
def test_wrong_setting_is_an_error_of_one_line(godoty: Godoty, environment: dict[str, str], expected: str) -> None:
    """A server that cannot start names the setting, without its value and without a traceback."""
    outcome = godoty("serve", **environment)

    assert outcome.code == 1
    last = outcome.err.splitlines()[-1]
    assert last.startswith("godoty: ")
    assert expected in last
    assert "Traceback" not in outcome.err
    assert "hunter2" not in outcome.err


def test_address_in_use_is_an_error_of_one_line(godoty: Godoty, service: Service) -> None:
    """A second server on the same port fails instead of sharing it."""
    outcome = godoty("serve", GODOTY_LISTEN=service.target, OPENROUTER_API_KEY="sandbox-tests")

    assert outcome.code == 1
    assert f"GODOTY_LISTEN={service.target}" in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err


def test_help_lists_the_commands(godoty: Godoty) -> None:
    """All commands are listed."""
    outcome = godoty("--help")

    assert outcome.code == 0
    for command in ("serve", "dev", "health", "tenant", "key", "admin", "usage", "ledger", "prices"):
        assert command in outcome.out


def test_health_does_not_import_strands() -> None:
    """A container runs it every few seconds, so it must not cost a second of CPU."""
    code = "import sys, godoty_service.cli; print([n for n in ('strands', 'openai', 'motor') if n in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)  # noqa: S603 - ours

    assert loaded.stdout == "[]\n"

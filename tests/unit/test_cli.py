"""The command line: what it prints, and how it ends."""

import logging
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import pytest
import structlog
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from godoty_service.cli import main
from godoty_service.sandbox.mongod import free_port
from tests.service.service import Service


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


Godoty = Callable[..., Outcome]


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
def godoty(service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Godoty:
    """Runs `godoty` on the shared server's database, as its entry point does."""

    def run(*arguments: str, **environment: str) -> Outcome:
        known = {
            "GODOTY_MONGODB_URI": service.surroundings.mongodb_uri,
            "GODOTY_MONGODB_DATABASE": service.database.name,
            "GODOTY_OPENROUTER_BASE_URL": service.surroundings.sandbox.base_url,
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
    """Tell whether the running server takes a key for a conversation."""
    with grpc.insecure_channel(service.target) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        try:
            stub.ListSessions(pb.ListSessionsRequest(), metadata=(("authorization", f"Bearer {key}"),), timeout=10)
        except grpc.RpcError as error:
            refusals = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            assert error.code() in refusals  # noqa: PT017 - else it is no answer
            return False
    return True


def test_a_tenant_and_his_key_are_made_and_revoked(godoty: Godoty, service: Service) -> None:
    """What is printed can be used at once: an id, a key that a running server takes, and its end."""
    made = godoty("tenant", "create", "Ada & Sons")
    tenant_id = made.out.strip()
    assert made == Outcome(0, f"{tenant_id}\n", "")
    assert re.fullmatch(r"tnt_[0-9a-f]+", tenant_id)

    key = godoty("key", "issue", tenant_id).out.strip()
    assert re.fullmatch(r"gdt_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", key)
    assert accepted(service, key)
    billing = godoty("key", "issue", tenant_id, "--scope", "billing", "--days", "1").out.strip()
    assert not accepted(service, billing)

    assert "revoked" in godoty("key", "revoke", tenant_id, key.split("_")[1]).out
    document = service.database["api_keys"].find_one({"_id": key.split("_")[1]})
    assert document is not None
    assert document["revoke_time"] is not None


def test_audit_trail_names_the_user_of_the_operating_system(godoty: Godoty, service: Service) -> None:
    """Who ran a command is not what a variable says."""
    variables = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER"), "mallory")
    tenant_id = godoty("tenant", "create", "Ada", **variables).out.strip()
    change = service.database["admin_changes"].find_one({"tenant_id": tenant_id})

    assert change is not None
    assert change["by"] == pwd.getpwuid(os.getuid()).pw_name


def test_lists_can_be_copied_from(godoty: Godoty, service: Service) -> None:
    """Ids stand there whole, wherever the output goes; secrets do not."""
    tenant_id = godoty("tenant", "create", "a name that is as long as names of companies sometimes are").out.strip()
    key = godoty("key", "issue", tenant_id, "--scope", "converse", "--scope", "billing").out.strip()
    _, key_id, secret = key.split("_", 2)

    assert tenant_id in godoty("tenant", "list").out
    listed = godoty("key", "list", tenant_id).out
    assert key_id in listed
    assert secret not in listed
    assert "converse" in listed
    assert "billing" in listed


@pytest.mark.parametrize(
    "arguments",
    [("key", "issue", "tnt_none"), ("key", "list", "tnt_none"), ("key", "revoke", "tnt_none", "0123456789abcdef")],
    ids=" ".join,
)
def test_what_is_not_there_is_told_in_one_line(godoty: Godoty, arguments: tuple[str, ...]) -> None:
    """Exit code 1, and one line that says what is wrong."""
    outcome = godoty(*arguments)

    assert (outcome.code, outcome.out) == (1, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("godoty: ")
    assert "tnt_none" in line


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - asked, not bound
def test_health_is_an_exit_code(godoty: Godoty, service: Service, host: str) -> None:
    """0 where a server serves, also one that listens everywhere; 1 where none does."""
    port = service.target.rpartition(":")[2]

    assert godoty("health", GODOTY_LISTEN=f"{host}:{port}") == Outcome(0, "serving\n", "")
    absent = godoty("health", GODOTY_LISTEN=f"{host}:{free_port()}")
    assert absent.code == 1
    assert "not serving" in absent.err


@pytest.mark.parametrize(
    ("environment", "said"),
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
def test_a_wrong_setting_is_told_in_one_line(godoty: Godoty, environment: dict[str, str], said: str) -> None:
    """A server that cannot start says which setting is at fault, shows no value, and has no traceback."""
    outcome = godoty("serve", **environment)

    assert outcome.code == 1
    last = outcome.err.splitlines()[-1]
    assert last.startswith("godoty: ")
    assert said in last
    assert "Traceback" not in outcome.err
    assert "hunter2" not in outcome.err


def test_an_address_that_is_taken_is_told_in_one_line(godoty: Godoty, service: Service) -> None:
    """A second server on the same port fails, instead of sharing it unseen."""
    outcome = godoty("serve", GODOTY_LISTEN=service.target, OPENROUTER_API_KEY="sandbox-tests")

    assert outcome.code == 1
    assert f"GODOTY_LISTEN={service.target}" in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err


def test_help_tells_the_commands(godoty: Godoty) -> None:
    """The list of them."""
    outcome = godoty("--help")

    assert outcome.code == 0
    for command in ("serve", "dev", "health", "tenant", "key", "admin", "usage", "ledger", "prices"):
        assert command in outcome.out


def test_asking_for_health_loads_no_agent() -> None:
    """A container asks every few seconds: that must not cost a second of CPU each time."""
    code = "import sys, godoty_service.cli; print([n for n in ('strands', 'openai', 'motor') if n in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)  # noqa: S603 - ours

    assert loaded.stdout == "[]\n"

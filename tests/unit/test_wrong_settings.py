"""Each wrong setting fails the start with one line: the variable, its value and what it takes."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from annotated_types import Ge, Le

from godoty_service.cli import main
from godoty_service.settings.environment import edit_distance, read_environment, takes
from godoty_service.settings.settings import Settings
from tests.conftest import server_environment
from tests.support.backends import Backends
from tests.support.command import Command
from tests.support.service import PATIENCE

NUMBERS = [name for name, field in Settings.model_fields.items() if field.annotation in (int, float)]
GOOD = {
    "GODOTY_MONGODB_URI": "mongodb://127.0.0.1:1",
    "OPENROUTER_API_KEY": "sk-good",
    "GODOTY_OPENROUTER_BASE_URL": "http://127.0.0.1:1/api/v1",  # nothing answers there
}

# By variable: what it is set to, what the line says that it got, and what it takes.
WRONG: list[tuple[str, str, str, str]] = [
    ("GODOTY_LISTEN", "127.0.0.1:99999", "'127.0.0.1:99999'", "host:port with a port from 0 to 65535"),
    ("GODOTY_LISTEN", "127.0.0.1", "'127.0.0.1'", "host:port"),
    ("GODOTY_LISTEN", "[::1:50051", "'[::1:50051'", "host:port"),
    ("GODOTY_LISTEN", "", "an empty value", "host:port"),
    ("GODOTY_METRICS_LISTEN", "9464", "'9464'", "host:port"),
    ("GODOTY_METRICS_LISTEN", "0.0.0.0:99999", "'0.0.0.0:99999'", "host:port"),
    ("GODOTY_WORKERS", "0", "0", "a whole number from 1 to 256"),
    ("GODOTY_WORKERS", "1.5", "1.5", "a whole number"),
    ("GODOTY_RECONCILE_INTERVAL", "0", "0", "a number from 0.01 to 86400"),
    ("GODOTY_ROLLUP_INTERVAL", "0", "0", "a number from 0.01"),
    ("GODOTY_TURN_LOG_INTERVAL", "0", "0", "a number from 0.005"),
    ("GODOTY_TURN_WATCH_INTERVAL", "0", "0", "a number from"),
    ("GODOTY_KEY_USE_INTERVAL", "0", "0", "a number from"),
    ("GODOTY_KEY_WATCH_INTERVAL", "1.6", "1.6", "a number from 0.05 to 1.5"),
    ("GODOTY_ERASURE_DELAY", "29", "29", "a number from 30 to 31536000"),
    ("GODOTY_CATALOGUE_REFRESH", "0", "0", "a number from"),
    ("GODOTY_HEARTBEAT", "0", "0", "a number from 0.02"),
    ("GODOTY_HEARTBEAT", "1e400", "1e400", "a number from 0.02 to 3600"),
    ("GODOTY_LEASE", "1", "1", "at least 2 times GODOTY_HEARTBEAT (2)"),
    ("GODOTY_LEASE", "15s", "'15s'", "a number from 0.5 to 86400"),
    ("GODOTY_LEASE", "inf", "'inf'", "a number from 0.5 to 86400"),
    ("GODOTY_STORAGE_TIMEOUT", "nan", "'nan'", "a number from"),
    ("GODOTY_DRAIN_GRACE", "-1", "-1", "a number from 0 to 3600"),
    ("GODOTY_RECORD_PATIENCE", "inf", "'inf'", "a number from 0 to 604800"),
    ("GODOTY_LONGEST_TURN", "0", "0", "a number from 0.1"),
    ("GODOTY_TURN_LOG_RETENTION", "-5", "-5", "a number from 1"),
    ("GODOTY_MAX_CONNECTIONS", "0", "0", "a whole number from 1 to 1000000"),
    ("GODOTY_TRUSTED_PROXIES", "10.0.0.0/8,proxy", "'10.0.0.0/8,proxy'", "networks"),
    ("GODOTY_FETCH_HOSTS", "https://example.com/", "'https://example.com/'", "hosts"),
    ("GODOTY_MAX_TEXT_BYTES", "-1", "-1", "a whole number from"),
    ("GODOTY_HISTORY_MESSAGES", "1000000000", "1000000000", "a whole number from 4 to 10000"),
    ("GODOTY_OPENROUTER_BASE_URL", "openrouter.ai/api/v1", "'openrouter.ai/api/v1'", "a URL with https://"),
    ("GODOTY_OPENROUTER_BASE_URL", "https://", "'https://'", "a URL with https://"),
    ("GODOTY_OPENROUTER_BASE_URL", "https://u:p@gateway.test/v1", "'https://[key]@gateway.test/v1'", "without user"),
    (
        "GODOTY_OPENROUTER_BASE_URL",
        "http://openrouter.ai/api/v1",
        "http://openrouter.ai/api/v1",
        "https://, or http://",
    ),
    ("GODOTY_OPENROUTER_BASE_URL", "http://8.8.8.8/api/v1", "http://8.8.8.8/api/v1", "https://, or http://"),
    ("OPENROUTER_API_KEY", "sk-secret\n", "10 characters, with spaces or control characters", "a key: 1 to 512"),
    ("OPENROUTER_API_KEY", "", "an empty value", "a key: 1 to 512"),
    ("GODOTY_OPENROUTER_OLD_API_KEYS", "sk-secret,", "10 characters", "keys, separated by commas"),
    ("GODOTY_ENCRYPTION_KEYS", "", "an empty value", "keys, separated by commas"),
    ("GODOTY_DEFAULT_MODEL", "gpt 4o", "'gpt 4o'", "the id of a model"),
    ("GODOTY_APP_NAME", "Go\ndoty", r"'Go\ndoty'", "1 to 200 printable ASCII characters"),
    ("GODOTY_SITE_URL", "godoty.app", "'godoty.app'", "a URL with http"),
    ("GODOTY_MONGODB_URI", "mysql://root:secret@db", "22 characters", "a URI that starts with mongodb://"),
    ("GODOTY_MONGODB_DATABASE", "a.b", "'a.b'", "1 to 63 of"),
    ("GODOTY_LOG_LEVEL", "LOUD", "'LOUD'", "one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ("GODOTY_LOG_FORMAT", "xml", "'xml'", "one of json, console"),
    ("GODOTY_REFLECTION", "maybe", "'maybe'", "true or false"),
    ("GODOTY_WRONG_KEY_LOOKUPS", "1e9", "1e9", "a number from 0.1 to 1000000"),
    ("GODOTY_LEAES", "15", "no such setting", "GODOTY_LEASE"),
    ("GODOTY_METRIC_LISTEN", "127.0.0.1:9464", "no such setting", "GODOTY_METRICS_LISTEN"),
    ("GODOTY_LISTEN_", "127.0.0.1:1", "no such setting", "GODOTY_LISTEN"),
    ("GODOTY_MNOGODB_URI", "mongodb://m", "no such setting", "GODOTY_MONGODB_URI"),
]


@dataclass(frozen=True)
class Outcome:
    """The result of a command."""

    code: int
    lines: list[str]


Godoty = Callable[..., Outcome]


@pytest.fixture
def godoty(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Godoty:
    """Runs `godoty` in this process."""

    def run(*arguments: str, **environment: str) -> Outcome:
        with monkeypatch.context() as patch:
            for name, value in {**GOOD, **environment}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["godoty", *arguments])
            try:
                main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
        return Outcome(code, capsys.readouterr().err.splitlines())

    return run


@pytest.mark.parametrize(("name", "value", "got", "wanted"), WRONG, ids=[f"{each[0]}={each[1]}" for each in WRONG])
def test_wrong_setting_is_refused_in_one_line(godoty: Godoty, name: str, value: str, got: str, wanted: str) -> None:
    """The line has the variable, its value and what it takes, and no secret."""
    outcome = godoty("config", "check", **{name: value})

    assert outcome.code == 1
    (line,) = outcome.lines
    assert line.startswith(f"godoty: {name}: ")
    assert got in line
    assert f"takes {wanted}" in line or wanted in line.partition("takes ")[2]
    assert "secret" not in line


def test_each_wrong_setting_has_its_line(godoty: Godoty) -> None:
    """All wrong settings are reported at once."""
    outcome = godoty("config", "check", GODOTY_WORKERS="0", GODOTY_HEARTBEAT="0", GODOTY_LEAES="1")

    assert [line.split(": ")[1] for line in outcome.lines] == ["GODOTY_LEAES", "GODOTY_WORKERS", "GODOTY_HEARTBEAT"]


def test_correct_settings_pass_the_check(godoty: Godoty) -> None:
    """The exit status is 0; if the provider's list cannot be fetched, that is reported."""
    outcome = godoty("config", "check")

    assert outcome.code == 0
    assert [line for line in outcome.lines if "default model was not checked" not in line] == []


@pytest.mark.parametrize("name", ["GODOTY_MONGODB_URI", "OPENROUTER_API_KEY"])
def test_missing_setting_is_named(godoty: Godoty, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check reports missing settings as the start does."""
    monkeypatch.delitem(GOOD, name)
    (line,) = godoty("config", "check").lines

    assert line.startswith(f"godoty: {name} is not set")


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "-1", "1e309", "x"])
@pytest.mark.parametrize("name", NUMBERS)
def test_number_outside_its_range_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number is infinite, negative or none."""
    monkeypatch.setenv(f"GODOTY_{name.upper()}", value)

    with pytest.raises(ValueError, match=f"GODOTY_{name.upper()}: got "):
        read_environment()


def test_each_setting_has_a_range_and_a_line_of_documentation() -> None:
    """Each number has bounds, and each setting a description."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if name in NUMBERS:
            assert {Ge, Le} <= {type(each) for each in field.metadata}, name
            assert "from" in takes(field)


@pytest.mark.parametrize(
    "environment",
    [
        {"GODOTY_API_KEY": "gdt_1", "GODOTY_ADMIN_KEY": "gdt_2", "GODOTY_TEST_SEED": "1"},
        {"GODOTY_SERVICE_HOST": "10.0.0.1", "GODOTY_SERVICE_PORT": "50051", "GODOTY_SERVICE_PORT_GRPC": "50051"},
        {"GODOTY_PORT": "tcp://10.0.0.1:50051", "GODOTY_PORT_50051_TCP": "tcp://10.0.0.1:50051"},
        {"GODOTY_PORT_50051_TCP_ADDR": "10.0.0.1", "GODOTY_PORT_50051_TCP_PROTO": "tcp"},
        {"GODOTY_METRICS_PORT": "tcp://10.0.0.1:9464", "GODOTY_METRICS_SERVICE_HOST": "10.0.0.1"},
    ],
)
def test_variables_of_other_programs_are_ignored(godoty: Godoty, environment: dict[str, str]) -> None:
    """Those of clients, of tests and of Kubernetes' services cause neither errors nor warnings."""
    outcome = godoty("config", "check", **environment)

    assert outcome.code == 0
    assert not any("GODOTY_" in line for line in outcome.lines)


def test_unknown_names_are_one_warning(godoty: Godoty) -> None:
    """Unknown names do not fail the start: one warning lists them."""
    outcome = godoty("config", "check", GODOTY_COLOUR_SCHEME="dark", GODOTY_OPENROUTER_API_KEY="sk-secret")

    assert outcome.code == 0
    (line,) = [line for line in outcome.lines if "GODOTY_" in line]
    assert "GODOTY_COLOUR_SCHEME" in line
    assert "GODOTY_OPENROUTER_API_KEY" in line
    assert "secret" not in line


def test_http_to_a_public_host_may_be_allowed(godoty: Godoty) -> None:
    """A setting allows sending the key unencrypted; private addresses need no permission."""
    allowed = {"GODOTY_OPENROUTER_BASE_URL": "http://gateway.invalid/v1", "GODOTY_ALLOW_PLAINTEXT_PROVIDER": "true"}
    assert godoty("config", "check", **allowed).code == 0

    for host in ("localhost:1", "127.0.0.1:1", "[::1]:1"):
        assert godoty("config", "check", GODOTY_OPENROUTER_BASE_URL=f"http://{host}/api/v1").code == 0


@pytest.mark.parametrize("host", ["10.1.2.3", "192.168.0.9:4000", "172.16.0.1", "[fd00::1]:80", "api.localhost"])
def test_private_addresses_need_no_permission(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway in the same network may use http://."""
    monkeypatch.setenv("GODOTY_OPENROUTER_BASE_URL", f"http://{host}/api/v1")

    assert read_environment().settings.openrouter_base_url == f"http://{host}/api/v1"


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        ("LEASE", "LEASE", 0),
        ("LEAES", "LEASE", 1),
        ("LEAS", "LEASE", 1),
        ("LEASES", "LEASE", 1),
        ("LEUSA", "LEASE", 2),
        ("EALSE", "LEASE", 2),
        ("LISTEN", "LEASE", 4),
        ("A", "ABCD", 3),
    ],
)
def test_edit_distance_counts_swapped_letters_once(first: str, second: str, distance: int) -> None:
    """Optimal string alignment; beyond two letters it need not be exact."""
    assert min(edit_distance(first, second), 4) == min(distance, 4)


async def started(environment: dict[str, str], log: Path) -> tuple[int, list[str]]:
    """Start a server that fails; return its exit status and the lines that are not log lines."""
    code = await asyncio.wait_for(Command("serve", environment=environment, out=log).wait(), PATIENCE)
    return code, [line for line in log.read_text().splitlines() if not line.startswith("{")]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"GODOTY_LISTEN": "127.0.0.1:99999"}, "GODOTY_LISTEN: got '127.0.0.1:99999', takes host:port"),
        ({"GODOTY_LEASE": "1"}, "GODOTY_LEASE: got 1, takes at least 2 times GODOTY_HEARTBEAT (2)"),
        ({"OPENROUTER_API_KEY": ""}, "OPENROUTER_API_KEY: got an empty value, takes a key"),
        ({"GODOTY_DEFAULT_MODEL": "unknown/nothing"}, "GODOTY_DEFAULT_MODEL: got unknown/nothing, takes the id of a"),
        (
            {"GODOTY_DEFAULT_MODEL": "unknown/nothing", "GODOTY_WORKERS": "2"},
            "GODOTY_DEFAULT_MODEL: got unknown/nothing, takes the id of a",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
async def test_server_with_a_wrong_setting_does_not_start(
    backends: Backends, empty_database: str, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    """`godoty serve` ends with exit status 1 and one line, and never serves."""
    log = tmp_path / "log"
    code, lines = await started(server_environment(backends, empty_database) | environment, log)

    assert code == 1
    (line,) = lines
    assert line.startswith(f"godoty: {said}")
    assert '"serving"' not in log.read_text()


async def test_taken_metrics_port_is_named(backends: Backends, empty_database: str, tmp_path: Path) -> None:
    """The error names which of the server's two ports is in use."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        environment = server_environment(backends, empty_database) | {"GODOTY_METRICS_LISTEN": listen}
        code, lines = await started(environment, tmp_path / "log")

    assert code == 1
    assert lines == [f"godoty: GODOTY_METRICS_LISTEN={listen}: the address cannot be listened on: {os.strerror(98)}."]


def test_check_reads_the_providers_list(godoty: Godoty, backends: Backends) -> None:
    """`godoty config check` refuses a default model that the provider does not list."""
    base_url = backends.sandbox.base_url
    assert godoty("config", "check", GODOTY_OPENROUTER_BASE_URL=base_url) == Outcome(0, [])

    outcome = godoty("config", "check", GODOTY_OPENROUTER_BASE_URL=base_url, GODOTY_DEFAULT_MODEL="unknown/nothing")
    assert outcome.code == 1
    assert outcome.lines[-1].startswith("godoty: GODOTY_DEFAULT_MODEL: got unknown/nothing")


@pytest.mark.parametrize("files", [("GODOTY_TLS_CERT",), ("GODOTY_TLS_KEY",)])
def test_check_reads_the_files(godoty: Godoty, tmp_path: Path, files: tuple[str, ...]) -> None:
    """A certificate without its key, an absent file, and a plain-text listener are refused."""
    absent = str(tmp_path / "absent")
    assert (
        "both GODOTY_TLS_CERT and GODOTY_TLS_KEY" in godoty("config", "check", **dict.fromkeys(files, absent)).lines[0]
    )

    both = dict.fromkeys(("GODOTY_TLS_CERT", "GODOTY_TLS_KEY"), absent)
    assert "cannot be read" in godoty("config", "check", **both).lines[0]
    assert "open to the network" in godoty("config", "check", GODOTY_LISTEN="0.0.0.0:1").lines[0]

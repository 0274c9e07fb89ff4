"""`godoty dev`: the service and all it needs on one machine; it starts what the environment does not name."""

import asyncio
import base64
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console

from godoty_service.bootstrap.components import Components, open_components
from godoty_service.errors import GodotyError
from godoty_service.rpc.listener import ListenError
from godoty_service.server import Running, running
from godoty_service.settings.settings import Settings
from godoty_service.tenancy.auth import Scope
from godoty_service.webhooks.event import WebhookEvent
from openrouter_sandbox.mongodb.mongod import MongodError, PortInUseError
from openrouter_sandbox.mongodb.replica_set import LocalMongo
from openrouter_sandbox.server import Sandbox

_SANDBOX_KEY = "sandbox-demo"
_MONGOD_PORT, _LISTEN_PORT = 27_117, 50_051  # if they are free
_DEMO = "demo"
_ENCRYPTION_KEYS = "GODOTY_ENCRYPTION_KEYS"
_DEMO_SCOPES = frozenset({Scope.CONVERSE, Scope.BILLING, Scope.AGENTS})
_LOOPBACK = "127.0.0.1"
_LOOPBACK_NETWORKS = "127.0.0.0/8, ::1"
_TRIES = 20  # between the check of a port and its use, another process may take it

out = Console(highlight=False, soft_wrap=True, emoji=False)


class LocalPorts:
    """Ports by name, stored in a file as NAME=PORT lines."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Args:
            path: The file; it need not exist.
        """
        self._path = path
        self._stored = _read(path)

    def candidates(self, name: str, *, preferred: int) -> Iterator[int]:
        """Yield the ports to try: the stored one, then the preferred one if it is free, then other free ones."""
        stored = self._stored.get(name)
        if stored is not None:
            yield stored
        if preferred != stored and is_free(preferred):
            yield preferred
        for _ in range(_TRIES):
            yield _free_port()

    def store(self, name: str, port: int) -> None:
        """Store the port that is used."""
        if self._stored.get(name) != port:
            self._stored[name] = port
            self._path.write_text("".join(f"{each}={number}\n" for each, number in self._stored.items()))


def is_free(port: int) -> bool:
    """Return whether a port of 127.0.0.1 can be listened on now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _read(path: Path) -> dict[str, int]:
    """Read the file; a line without a port is skipped."""
    lines = path.read_text().splitlines() if path.exists() else []
    named = (line.partition("=") for line in lines)
    return {name: int(port) for name, _, port in named if port.isdecimal() and 0 < int(port) < 2**16}


async def run(settings: Settings) -> None:
    """Start everything, print how to use it, and stop everything on SIGINT or SIGTERM.

    Raises:
        ValueError: No MongoDB can be started.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    directory = settings.local_dir
    directory.mkdir(parents=True, exist_ok=True)
    environment = directory / "dev.env"
    environment.unlink(missing_ok=True)  # it exists only while the servers that it names run
    ports = LocalPorts(directory / "ports")
    async with AsyncExitStack() as stack:
        settings.mcp_networks = settings.mcp_networks or _LOOPBACK_NETWORKS
        settings.webhook_networks = settings.webhook_networks or _LOOPBACK_NETWORKS
        settings.encryption_keys = settings.encryption_keys or _encryption_key(directory / "encryption.key")
        if not settings.mongodb_uri:
            settings.mongodb_uri = await stack.enter_async_context(_mongod(directory / "mongodb", ports))
        canned = _is_canned(settings)
        if canned:
            out.print("Starting the sandbox OpenRouter …")
            sandbox = await stack.enter_async_context(Sandbox())
            settings.openrouter_api_key = SecretStr(_SANDBOX_KEY)
            settings.openrouter_base_url = sandbox.base_url
        out.print("Starting the service …")
        async with open_components(settings, migrate=True) as components:
            keys = await _demo_keys(components, directory / "demo.keys")
        server = await stack.enter_async_context(_server(settings, ports))
        _write_environment(environment, settings, address=server.address, keys=keys, canned=canned)
        _print_usage(server.address, keys["converse"], canned=canned)
        await stop.wait()
        environment.unlink(missing_ok=True)
        out.print("Stopping …")


@asynccontextmanager
async def _mongod(directory: Path, ports: LocalPorts) -> AsyncIterator[str]:
    """Start a local MongoDB on the data of the last run.

    Raises:
        ValueError: MongoDB cannot be started; the text says what to do.
    """
    async with AsyncExitStack() as stack:
        try:
            mongo = await _started_mongo(stack, directory, ports)
        except MongodError as error:
            raise ValueError(str(error)) from error
        yield mongo.uri


async def _started_mongo(stack: AsyncExitStack, directory: Path, ports: LocalPorts) -> LocalMongo:
    refusal: MongodError | None = None
    for port in ports.candidates("mongodb", preferred=_MONGOD_PORT):
        out.print(f"Starting MongoDB on 127.0.0.1:{port}; its data is in {directory} …")
        try:
            mongo = await stack.enter_async_context(LocalMongo(directory, port=port))
        except PortInUseError as error:
            refusal = error
        else:
            ports.store("mongodb", port)
            return mongo
    raise refusal or MongodError("there is no free port")


@asynccontextmanager
async def _server(settings: Settings, ports: LocalPorts) -> AsyncIterator[Running]:
    """Run the service on GODOTY_LISTEN if it is set, otherwise on a free port.

    Raises:
        ValueError: A setting is missing or wrong, or no port is free.
    """
    if "listen" in settings.model_fields_set:
        async with running(settings, on_event=_print_event) as server:
            yield server
        return
    async with AsyncExitStack() as stack:
        yield await _started_server(stack, settings, ports)


async def _started_server(stack: AsyncExitStack, settings: Settings, ports: LocalPorts) -> Running:
    for port in filter(is_free, ports.candidates("listen", preferred=_LISTEN_PORT)):
        settings.listen = f"127.0.0.1:{port}"
        try:
            server = await stack.enter_async_context(running(settings, on_event=_print_event))
        except ListenError:  # in use by now
            continue
        ports.store("listen", port)
        return server
    raise ValueError("There is no free port to listen on: set GODOTY_LISTEN.")


def _print_event(event: WebhookEvent) -> None:
    """Print an event that webhooks are notified of, whether or not there is one."""
    out.print(f"webhook event: {event.body}", markup=False)


def _encryption_key(path: Path) -> SecretStr:
    """Return the encryption key of the last run, or generate one: tenants' secrets cannot be stored without."""
    stored = _read_lines(path).get(_ENCRYPTION_KEYS)
    if stored is None:
        stored = base64.b64encode(os.urandom(32)).decode()
        _write_lines(path, {_ENCRYPTION_KEYS: stored})
    return SecretStr(stored)


async def _demo_keys(components: Components, path: Path) -> dict[str, str]:
    """Return the demo tenant's keys of the last run, or create the tenant and new keys.

    The database stores only hashes, so the keys are stored in a file that only its owner can read.
    """
    stored, api_keys = _read_lines(path), components.tenancy.api_keys
    try:
        known = {name: await api_keys.verify(text) for name, text in stored.items()}
    except GodotyError:
        known = {}  # the database is not the one of the last run
    if known.keys() == {"converse", "admin"}:
        if known["converse"].scopes < _DEMO_SCOPES:  # of an earlier build
            _, stored["converse"] = await api_keys.issue(known["converse"].tenant_id, scopes=_DEMO_SCOPES)
            _write_lines(path, stored)
        return stored
    tenant = await components.tenancy.tenants.create(_DEMO)
    _, converse = await api_keys.issue(tenant.tenant_id, scopes=_DEMO_SCOPES)
    _, admin = await api_keys.issue(tenant.tenant_id, scopes=frozenset({Scope.ADMIN}))
    made = {"converse": converse, "admin": admin}
    _write_lines(path, made)
    return made


def _is_canned(settings: Settings) -> bool:
    """Return whether the sandbox answers: without a provider key, or with the one that an earlier run wrote."""
    key = settings.openrouter_api_key
    return key is None or key.get_secret_value() == _SANDBOX_KEY


def _write_environment(path: Path, settings: Settings, *, address: str, keys: dict[str, str], canned: bool) -> None:
    """Write the addresses and keys for scripts. A real provider key is not written."""
    values = {
        "GODOTY_LISTEN": address,
        "GODOTY_API_KEY": keys["converse"],
        "GODOTY_ADMIN_KEY": keys["admin"],
        "GODOTY_MONGODB_URI": settings.mongodb_uri or "",
        "GODOTY_OPENROUTER_BASE_URL": settings.openrouter_base_url,
    }
    _write_lines(path, values | ({"OPENROUTER_API_KEY": _SANDBOX_KEY} if canned else {}))


def _print_usage(address: str, key: str, *, canned: bool) -> None:
    say = '{"session_id": "first", "text": "What is 12*13?"}'
    out.print()
    out.print(f"[bold green]Godoty serves on {address}.[/]")
    if canned:
        out.print("Answers are canned: they come from the sandbox OpenRouter and cost nothing.")
        out.print("For real ones, set OPENROUTER_API_KEY and start again.")
    else:
        out.print("[bold red]Answers are real: each turn costs money on the account of OPENROUTER_API_KEY.[/]")
    header = f"authorization: Bearer {key}"
    method = "godoty.v1.AgentService/Converse"
    grpcurl = f"grpcurl -plaintext -H '{header}' -d '{say}' {address} {method}"
    buf = f"npx @bufbuild/buf curl --protocol grpc --http2-prior-knowledge -H '{header}' -d '{say}' http://{address}/{method}"
    lines = (
        f"The demo tenant's key: {key}",
        "",
        "A first turn, with the installed client:",
        "  .venv/bin/python -m godoty.chat --session first --once 'What is 12*13?'",
        "with grpcurl:",
        f"  {grpcurl}",
        "with buf curl:",
        f"  {buf}",
        "A chat: make chat. Ctrl-C stops everything.",
    )
    for line in lines:
        out.print(line, markup=False)


def _read_lines(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def _write_lines(path: Path, values: dict[str, str]) -> None:
    """Write KEY=VALUE lines atomically, readable by their owner only."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    temporary.replace(path)

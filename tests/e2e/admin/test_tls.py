"""The listener's TLS: accepted clients, refusals at start, and renewed certificates."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from godoty_service.cli.health import serving
from godoty_service.rpc.listener import is_loopback
from godoty_service.tls import health_client
from openrouter_sandbox.mongodb.mongod import free_port
from tests.conftest import Start, server_environment
from tests.e2e.admin.certificates import Pair, authority, signed
from tests.support.backends import Backends
from tests.support.service import LONG_PAUSE, eventually

HOST = "godoty.test"


@pytest.fixture(scope="module")
def trusted() -> Pair:
    """Return the authority of the server's certificate."""
    return authority("Trusted")


@pytest.fixture
def files(trusted: Pair, tmp_path: Path) -> dict[str, Any]:
    """Return the files of the server's certificate."""
    return signed(trusted, HOST, "127.0.0.1").write(tmp_path, "server")


async def answers(target: str, root: Pair | None, client: Pair | None = None, name: str = HOST) -> bool:
    """Return whether a server answers a health check; over plain text if no authority is given."""
    options = [("grpc.ssl_target_name_override", name)]
    if root is None:
        channel = grpc.aio.insecure_channel(target)
    else:
        shown = (client.key_pem, client.pem) if client else (None, None)
        channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(root.pem, *shown), options=options)
    async with channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=180)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - else it is no answer
            return False
    return True


async def test_server_with_a_certificate_accepts_tls_only(serve: Start, files: dict[str, Any], trusted: Pair) -> None:
    """A client that trusts its authority is served, including turns; plain text and other authorities fail."""
    service = await serve(**files)

    assert await answers(service.target, trusted)
    assert not await answers(service.target, None)
    assert not await answers(service.target, authority("Else"))
    assert not await answers(service.target, trusted, name="else.test")
    credentials = grpc.ssl_channel_credentials(trusted.pem)
    async with grpc.aio.secure_channel(service.target, credentials) as channel:
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        request = pb.ConverseRequest(session_id="talk", text="hi")
        kinds = [each.event.WhichOneof("event") async for each in stub.Converse(request, metadata=service.metadata)]
    assert kinds[-1] == "turn_finished"


async def test_only_clients_of_the_authorities_are_accepted(
    serve: Start, files: dict[str, Any], trusted: Pair, tmp_path: Path
) -> None:
    """mTLS: no certificate, one of another authority and a self-signed one are refused."""
    clients, other_authority = authority("Clients"), authority("Clients")
    (tmp_path / "clients.pem").write_bytes(clients.pem)
    service = await serve(**files, tls_client_ca=tmp_path / "clients.pem")

    assert await answers(service.target, trusted, signed(clients, "client"))
    assert not await answers(service.target, trusted)
    assert not await answers(service.target, trusted, signed(other_authority, "client"))
    assert not await answers(service.target, trusted, signed(trusted, "client"))
    assert not await answers(service.target, trusted, other_authority)


async def test_renewed_certificate_needs_no_restart(serve: Start, files: dict[str, Any], trusted: Pair) -> None:
    """New connections get the new one; a half-written pair leaves the old one in use."""
    service = await serve(**files)
    assert await answers(service.target, trusted)
    new = authority("New")
    renewed = signed(new, HOST)

    files["tls_cert"].write_bytes(renewed.pem)
    os.utime(files["tls_cert"], ns=(1, 1))
    assert await answers(service.target, trusted)
    files["tls_key"].write_bytes(renewed.key_pem)
    os.utime(files["tls_key"], ns=(1, 1))
    assert await answers(service.target, new)
    assert not await answers(service.target, trusted)


async def test_health_check_works_over_tls(serve: Start, files: dict[str, Any], trusted: Pair, tmp_path: Path) -> None:
    """`godoty health` trusts the server's own certificate, and presents a client certificate if required."""
    several: list[dict[str, Any]] = [{}, {"tls_client_ca": tmp_path / "trusted.pem"}]
    for more in several:
        (tmp_path / "trusted.pem").write_bytes(trusted.pem)
        service = await serve(**files, **more)
        settings = service.backends.settings(service.database.name, **files, **more)
        # A busy server may not answer within the command's timeout.
        await eventually(partial(serving, service.target, settings.certificates))
        assert not await serving(service.target)
        wrong = authority("Else").write(tmp_path, "else")
        other = service.backends.settings(service.database.name, **wrong)
        assert not await serving(service.target, other.certificates)


async def test_health_check_works_if_the_certificate_is_for_servers_only(
    serve: Start, trusted: Pair, tmp_path: Path
) -> None:
    """`godoty health` passes mTLS with a certificate for servers only, of an authority that no client has."""
    clients = authority("Clients")
    (tmp_path / "clients.pem").write_bytes(clients.pem)
    only_server = signed(trusted, HOST, "127.0.0.1", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    files: dict[str, Any] = only_server.write(tmp_path, "server") | {"tls_client_ca": tmp_path / "clients.pem"}
    service = await serve(**files)
    settings = service.backends.settings(service.database.name, **files)

    await eventually(partial(serving, service.target, settings.certificates))
    assert await answers(service.target, trusted, signed(clients, "client"))
    assert not await answers(service.target, trusted, only_server)
    assert not await answers(service.target, trusted)
    forged = health_client(authority("Else").key_pem)
    options = [("grpc.ssl_target_name_override", HOST)]
    credentials = grpc.ssl_channel_credentials(trusted.pem, *forged)
    async with grpc.aio.secure_channel(service.target, credentials, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=180)


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.9.1:50051", True),
        ("[::1]:50051", True),
        ("localhost:50051", True),
        ("unix:/tmp/godoty", True),
        ("0.0.0.0:50051", False),
        ("[::]:50051", False),
        (":50051", False),
        ("10.0.0.1:50051", False),
        ("localhost.example.com:50051", False),
        ("[::ffff:127.0.0.1]:50051", False),
        ("127.0.0.1.example.com:1", False),
    ],
)
def test_loopback_is_distinguished_from_the_network(listen: str, *, loopback: bool) -> None:
    """In case of doubt it is the network."""
    assert is_loopback(listen) is loopback


async def test_plain_text_on_the_network_needs_a_setting(serve: Start) -> None:
    """A listener that is open to the network needs TLS, or a setting that allows plain text."""
    with pytest.raises(ValueError, match="GODOTY_ALLOW_PLAINTEXT=true"):
        await serve(listen="0.0.0.0:0")

    service = await serve(listen="0.0.0.0:0", allow_plaintext=True)
    assert await answers(service.target.replace("0.0.0.0", "127.0.0.1"), None)  # noqa: S104 - replaced


async def test_listener_with_tls_may_be_open_to_the_network(serve: Start, files: dict[str, Any], trusted: Pair) -> None:
    """With a certificate it needs no such setting."""
    service = await serve(listen="0.0.0.0:0", **files)
    assert await answers(service.target.replace("0.0.0.0", "127.0.0.1"), trusted)  # noqa: S104 - replaced


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tls_key": None}, "both GODOTY_TLS_CERT and GODOTY_TLS_KEY"),
        ({"tls_cert": None}, "both GODOTY_TLS_CERT and GODOTY_TLS_KEY"),
        ({"tls_cert": "absent"}, "GODOTY_TLS_CERT: .*absent cannot be read"),
        ({"tls_key": "absent"}, "GODOTY_TLS_KEY: .*absent cannot be read"),
        ({"tls_client_ca": "absent"}, "GODOTY_TLS_CLIENT_CA: .*absent cannot be read"),
        ({"tls_cert": "other.key"}, "GODOTY_TLS_CERT has no PEM certificate"),
        ({"tls_key": "other.pem"}, "GODOTY_TLS_KEY: .* has no PEM private key"),
        ({"tls_key": "other.key"}, "GODOTY_TLS_KEY is not the key of the certificate"),
        ({"tls_client_ca": "other.key"}, "GODOTY_TLS_CLIENT_CA has no PEM certificate"),
    ],
)
async def test_wrong_file_is_reported_at_start(
    serve: Start, files: dict[str, Any], tmp_path: Path, settings: dict[str, str | None], expected: str
) -> None:
    """The error names the setting, before anything is served."""
    authority("Else").write(tmp_path, "other")
    wrong = {name: tmp_path / each if each else None for name, each in settings.items()}
    with pytest.raises(ValueError, match=expected):
        await serve(**{**files, **wrong})


async def godoty(command: str, environment: dict[str, str]) -> tuple[int, str]:
    """Return a function that runs a command and returns its exit status and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "godoty_service.cli", command),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_process_uses_tls_from_its_environment(
    backends: Backends, files: dict[str, Any], trusted: Pair, tmp_path: Path
) -> None:
    """The variables suffice, for `serve` (by each of its workers) and `health`."""
    environment = server_environment(backends, backends.new_database())
    environment |= {f"GODOTY_{name.upper()}": str(path) for name, path in files.items()}
    environment |= {"GODOTY_LISTEN": f"127.0.0.1:{free_port()}", "GODOTY_WORKERS": "2"}
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "godoty_service.cli", "serve", env=environment, stdout=log, stderr=log
        )
    try:
        certificates = backends.settings(environment["GODOTY_MONGODB_DATABASE"], **files).certificates

        async def serves() -> bool:
            assert process.returncode is None, (tmp_path / "log").read_text()
            return await serving(environment["GODOTY_LISTEN"], certificates)

        await eventually(serves, pause=LONG_PAUSE)

        async def is_healthy() -> bool:
            return await godoty("health", environment) == (0, "serving\n")

        assert await eventually(is_healthy)
        assert await answers(environment["GODOTY_LISTEN"], trusted)
        assert not await answers(environment["GODOTY_LISTEN"], None)
    finally:
        process.terminate()
        await process.wait()


async def test_process_that_would_be_open_in_plain_text_exits(backends: Backends) -> None:
    """With one line that says what to do."""
    environment = server_environment(backends, backends.new_database())
    code, output = await godoty("serve", environment | {"GODOTY_LISTEN": "0.0.0.0:0"})

    assert code == 1
    assert output.splitlines()[-1].startswith("godoty: GODOTY_LISTEN=0.0.0.0:0 is open to the network")
    assert "Traceback" not in output

"""Opens the listener: TLS where certificates are named, mTLS with client authorities, else plain text on loopback."""

import ipaddress
from collections.abc import Callable

import grpc
import structlog

from godoty_service.certificates import Certificates, Pems
from godoty_service.health_certificates import health_authority

log = structlog.get_logger(__name__)


class ListenError(ValueError):
    """The address cannot be listened on: another process has it, or it is none of this machine's."""


def bind(server: grpc.aio.Server, *, listen: str, certificates: Certificates | None, allow_plaintext: bool) -> int:
    """Have a server listen, and tell its port.

    Args:
        server: The server, not started.
        listen: host:port.
        certificates: Its files; None: plain text. Files that change are read again, for the connections after that.
        allow_plaintext: Plain text may leave the machine.

    Raises:
        ListenError: The address cannot be listened on.
        ValueError: A file is wrong, or plain text would leave the machine.
    """
    check_plaintext(listen, certificates=certificates, allowed=allow_plaintext)
    try:
        if certificates is None:
            return server.add_insecure_port(listen)
        return server.add_secure_port(listen, _credentials(certificates))
    except RuntimeError as error:
        raise ListenError(f"GODOTY_LISTEN={listen}: the address cannot be listened on.") from error


def check_plaintext(listen: str, *, certificates: Certificates | None, allowed: bool) -> None:
    """Refuse a listener in plain text that other machines reach, unless it is allowed.

    Raises:
        ValueError: It is one.
    """
    if certificates is None and not (allowed or is_loopback(listen)):
        raise ValueError(
            f"GODOTY_LISTEN={listen} is open to the network, and the listener has no TLS: name a certificate in"
            " GODOTY_TLS_CERT and GODOTY_TLS_KEY, or, where something before it speaks TLS, set"
            " GODOTY_ALLOW_PLAINTEXT=true."
        )


def is_loopback(listen: str) -> bool:
    """Tell whether only this machine reaches an address."""
    if listen.startswith(("unix:", "unix-abstract:")):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Build credentials that read the files again when they have changed: certificates are renewed, servers stay."""
    first = certificates.read()
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first),
        _renewals(certificates),  # type: ignore[arg-type] # None says that nothing has changed
        require_client_authentication=first.authorities is not None,
    )


def _renewals(certificates: Certificates) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """Build what gRPC asks at each handshake, in a thread of its own; None: nothing has changed."""
    read = certificates.stamp()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal read
        stamp = certificates.stamp()
        if stamp == read:
            return None
        read = stamp
        try:
            pems = certificates.read()
        except ValueError as error:  # half-written: the old ones serve on, and the next change is looked at
            log.error("certificates_not_renewed", error=str(error))  # noqa: TRY400 - it says it all
            return None
        log.info("certificates_renewed")
        return _configuration(pems)

    return renewed


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    authorities = pems.authorities and pems.authorities.rstrip() + b"\n" + health_authority(pems.key)
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.chain)], root_certificates=authorities)

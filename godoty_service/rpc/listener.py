"""Opens the listener: TLS where certificates are named, mTLS where client authorities are, plain text on loopback only."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """The listener's PEM files.

    Attributes:
        cert: Its certificate, and those between it and its authority.
        key: Its private key, without a password.
        client_ca: The authorities whose client certificates are let in; None: clients need none.
    """

    cert: Path
    key: Path
    client_ca: Path | None

    def read(self) -> "Pems":
        """Read them.

        Raises:
            ValueError: One cannot be read, or the two do not belong together; the text names the setting.
        """
        chain, key = _read("GODOTY_TLS_CERT", self.cert), _read("GODOTY_TLS_KEY", self.key)
        authorities = _read("GODOTY_TLS_CLIENT_CA", self.client_ca) if self.client_ca else None
        leaf = _certificate("GODOTY_TLS_CERT", chain)
        try:
            public = load_pem_private_key(key, password=None).public_key()
        except (ValueError, TypeError) as error:
            raise ValueError(f"GODOTY_TLS_KEY: {self.key} has no PEM private key without a password.") from error
        if public != leaf.public_key():
            raise ValueError("GODOTY_TLS_KEY is not the key of the certificate in GODOTY_TLS_CERT.")
        if authorities is not None:
            _certificate("GODOTY_TLS_CLIENT_CA", authorities)
        return Pems(chain=chain, key=key, authorities=authorities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pems:
    """What the files hold."""

    chain: bytes
    key: bytes
    authorities: bytes | None

    @property
    def name(self) -> str | None:
        """A host name that the certificate is for; None: it names none."""
        leaf = x509.load_pem_x509_certificate(self.chain)
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return None
        found = names.get_values_for_type(x509.DNSName)
        return found[0].replace("*", "any") if found else None


def bind(server: grpc.aio.Server, *, listen: str, certificates: Certificates | None, allow_plaintext: bool) -> int:
    """Have a server listen, and tell its port.

    Args:
        server: The server, not started.
        listen: host:port.
        certificates: Its files; None: plain text. Files that change are read again, for the connections after that.
        allow_plaintext: Plain text may leave the machine.

    Raises:
        ValueError: The address cannot be listened on, a file is wrong, or plain text would leave the machine.
    """
    if certificates is None and not (allow_plaintext or is_loopback(listen)):
        raise ValueError(
            f"GODOTY_LISTEN={listen} is open to the network, and the listener has no TLS: name a certificate in"
            " GODOTY_TLS_CERT and GODOTY_TLS_KEY, or, where something before it speaks TLS, set"
            " GODOTY_ALLOW_PLAINTEXT=true."
        )
    try:
        if certificates is None:
            return server.add_insecure_port(listen)
        return server.add_secure_port(listen, _credentials(certificates))
    except RuntimeError as error:
        raise ValueError(f"GODOTY_LISTEN={listen}: the address cannot be listened on.") from error


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
        _configuration(first), _renewals(certificates), require_client_authentication=first.authorities is not None
    )


def _renewals(certificates: Certificates) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """Build what gRPC asks at each handshake, in a thread of its own; None: nothing has changed."""
    read = _stamp(certificates)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal read
        stamp = _stamp(certificates)
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
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.chain)], root_certificates=pems.authorities)


def _stamp(certificates: Certificates) -> list[float]:
    files = (certificates.cert, certificates.key, certificates.client_ca)
    return [file.stat().st_mtime_ns if file and file.exists() else 0 for file in files]


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{setting}: {path} cannot be read: {error.strerror}.") from error


def _certificate(setting: str, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError as error:
        raise ValueError(f"{setting} has no PEM certificate.") from error

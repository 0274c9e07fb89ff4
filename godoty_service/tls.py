"""The listener's TLS files, and the client certificate with which `godoty health` passes mTLS.

The server's own certificate need not be valid for clients. So the health check issues a certificate to itself, signed
with the server's private key, and the server trusts that issuer in addition to the configured ones: only a holder of
the server's private key can issue one.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from godoty_service.clock import utc_now

_NO_EXPIRY = datetime(9999, 12, 31, tzinfo=UTC)
_CLOCK_SKEW = timedelta(days=1)
_CLIENT_LIFETIME = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """The listener's PEM files.

    Attributes:
        cert: Its certificate chain, without the root.
        key: Its private key, without a password.
        client_ca: The authorities whose client certificates are accepted; None: clients need none.
    """

    cert: Path
    key: Path
    client_ca: Path | None

    def read(self) -> "TlsMaterial":
        """Read and check the files.

        Raises:
            ValueError: A file cannot be read, or key and certificate do not match; the text names the setting.
        """
        chain, key = _read_file("GODOTY_TLS_CERT", self.cert), _read_file("GODOTY_TLS_KEY", self.key)
        authorities = _read_file("GODOTY_TLS_CLIENT_CA", self.client_ca) if self.client_ca else None
        leaf = _parse_certificate("GODOTY_TLS_CERT", chain)
        try:
            public = load_pem_private_key(key, password=None).public_key()
        except (ValueError, TypeError) as error:
            raise ValueError(f"GODOTY_TLS_KEY: {self.key} has no PEM private key without a password.") from error
        if public != leaf.public_key():
            raise ValueError("GODOTY_TLS_KEY is not the key of the certificate in GODOTY_TLS_CERT.")
        if authorities is not None:
            _parse_certificate("GODOTY_TLS_CLIENT_CA", authorities)
        return TlsMaterial(chain=chain, key=key, authorities=authorities)

    def modified_at(self) -> tuple[int, ...]:
        """Return the files' modification times in nanoseconds: the value differs once one has changed."""
        return tuple(
            file.stat().st_mtime_ns for file in (self.cert, self.key, self.client_ca) if file and file.exists()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """The contents of the files, as PEM."""

    chain: bytes
    key: bytes
    authorities: bytes | None

    @property
    def name(self) -> str | None:
        """A host name that the certificate is valid for, or None if it names none."""
        leaf = x509.load_pem_x509_certificate(self.chain)
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return None
        hosts = names.get_values_for_type(x509.DNSName)
        return hosts[0].replace("*", "any") if hosts else None


def health_authority(server_key: bytes) -> bytes:
    """Return the certificate of the health checks' issuer, as PEM.

    Args:
        server_key: The server's private key, as PEM.
    """
    key = _load_key(server_key)
    name = _issuer_name(key)
    builder = (
        _builder(name, name, key.public_key(), until=_NO_EXPIRY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, _signature_hash(key)).public_bytes(Encoding.PEM)


def health_client(server_key: bytes) -> tuple[bytes, bytes]:
    """Issue a client certificate that is valid for an hour; return its private key and the certificate, as PEM.

    Args:
        server_key: The server's private key, as PEM.
    """
    issuer, key = _load_key(server_key), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "godoty health")])
    builder = (
        _builder(subject, _issuer_name(issuer), key.public_key(), until=utc_now() + _CLIENT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
    )
    pem = builder.sign(issuer, _signature_hash(issuer)).public_bytes(Encoding.PEM)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), pem


def _read_file(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{setting}: {path} cannot be read: {error.strerror}.") from error


def _parse_certificate(setting: str, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError as error:
        raise ValueError(f"{setting} has no PEM certificate.") from error


def _builder(subject: x509.Name, issuer: x509.Name, public_key: object, *, until: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)  # type: ignore[arg-type] # of a key that can sign
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc_now() - _CLOCK_SKEW)
        .not_valid_after(until)
    )


def _load_key(server_key: bytes) -> CertificateIssuerPrivateKeyTypes:
    return load_pem_private_key(server_key, password=None)  # type: ignore[return-value] # `Certificates.read` has matched it with a certificate


def _issuer_name(key: CertificateIssuerPrivateKeyTypes) -> x509.Name:
    """Return a name derived from the key, so that no other issuer has the same."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"godoty health {digest.finalize().hex()[:32]}")])


def _signature_hash(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()

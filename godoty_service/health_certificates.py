"""Certificates by which `godoty health` is let in where clients need one (mTLS).

The server's own certificate need not be fit for clients. So the probe issues a certificate to itself, signed with the
server's private key, and the server trusts that authority beside the ones that are configured: only a holder of the
server's private key can make one.
"""

from datetime import UTC, datetime, timedelta

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

_NEVER = datetime(9999, 12, 31, tzinfo=UTC)
_SLACK = timedelta(days=1)
_LIFETIME = timedelta(hours=1)


def health_authority(server_key: bytes) -> bytes:
    """Return the authority's certificate, as PEM.

    Args:
        server_key: The server's private key, as PEM.
    """
    key = _read(server_key)
    name = _name(key)
    builder = (
        _builder(name, name, key.public_key(), until=_NEVER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, _hash(key)).public_bytes(Encoding.PEM)


def health_client(server_key: bytes) -> tuple[bytes, bytes]:
    """Issue a client's certificate for an hour; returns its private key and the certificate, as PEM.

    Args:
        server_key: The server's private key, as PEM.
    """
    issuer, key = _read(server_key), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "godoty health")])
    builder = (
        _builder(subject, _name(issuer), key.public_key(), until=utc_now() + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
    )
    pem = builder.sign(issuer, _hash(issuer)).public_bytes(Encoding.PEM)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), pem


def _builder(subject: x509.Name, issuer: x509.Name, public_key: object, *, until: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)  # type: ignore[arg-type] # of a key that can sign
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc_now() - _SLACK)
        .not_valid_after(until)
    )


def _read(server_key: bytes) -> CertificateIssuerPrivateKeyTypes:
    return load_pem_private_key(server_key, password=None)  # type: ignore[return-value] # `Certificates.read` has checked that it is that of a certificate


def _name(key: CertificateIssuerPrivateKeyTypes) -> x509.Name:
    """Name the authority by its key, so that no other one is taken for it."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"godoty health {digest.finalize().hex()[:32]}")])


def _hash(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()

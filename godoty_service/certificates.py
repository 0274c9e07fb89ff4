"""The listener's certificates: which files, and what they hold."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key


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

    def stamp(self) -> tuple[int, ...]:
        """Tell when the files last changed, in whatever unit: it differs when one has."""
        return tuple(
            file.stat().st_mtime_ns for file in (self.cert, self.key, self.client_ca) if file and file.exists()
        )


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

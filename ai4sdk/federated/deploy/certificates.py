"""Keys of sites, and certificates for rehearsals."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from ai4sdk.errors import EnvironmentFault, UsageError

__all__ = ["load_or_make_key", "public_pem", "read_certificate", "read_public_key", "signed_by", "write_certificates"]

_DAYS = 90


def load_or_make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the EC P-384 key in a file that only its owner may read; made if there is none.

    Raises
    ------
    EnvironmentFault
        If it can be neither read nor made, or is no such key.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_private(path, ec.generate_private_key(ec.SECP384R1()))
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise EnvironmentFault(
            f"the key {path} cannot be read: {error}", hint="it must be an EC P-384 key in PEM, without a password"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EnvironmentFault(
            f"{path} is no EC P-384 key", hint="remove it, and a new one is made; or name another with --key"
        )
    return key


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public key of a private one as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Read a site's public key; raises ValueError if it is none on P-384, or not written the usual way."""
    try:
        key = load_pem_public_key(pem)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("no EC P-384 key")
    if key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) != pem:
        raise ValueError("the key is not in the form that all others are compared in")
    return key


def signed_by(key: ec.EllipticCurvePublicKey, signature: bytes, text: bytes) -> bool:
    """Tell whether a text was signed with the private part of a key."""
    try:
        key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def read_certificate(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """Read a certificate and its key, and look whether they belong together and are valid now.

    Raises
    ------
    EnvironmentFault
        If not.
    """
    try:
        pem, private = certificate.read_bytes(), key.read_bytes()
        found = x509.load_pem_x509_certificate(pem)
        loaded = load_pem_private_key(private, None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise EnvironmentFault(
            f"the certificate {certificate} or its key {key} cannot be read: {error}",
            hint="both must be PEM files, the key without a password; `ai4sdk federated certificates FOLDER NAME` "
            "makes some for a rehearsal",
        ) from error
    of_key = loaded.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if found.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) != of_key:
        raise EnvironmentFault(f"{key} is not the key of {certificate}", hint="name the two files that belong together")
    now = datetime.datetime.now(datetime.UTC)
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        raise EnvironmentFault(
            f"{certificate} is valid from {found.not_valid_before_utc:%F} to {found.not_valid_after_utc:%F} only",
            hint="have it renewed, or look at this machine's clock",
        )
    return pem, private


def write_certificates(folder: Path, names: Sequence[str]) -> None:
    """Make an authority and a server's certificate, for a rehearsal: whoever has ``ca.pem`` trusts it for 90 days.

    The authority's own key is not kept, so that it signs nothing else.

    Parameters
    ----------
    folder
        Gets ``ca.pem``, ``server.pem`` and ``server.key``.
    names
        Host names and IP addresses that sites reach the server under.

    Raises
    ------
    UsageError
        If there are such files already.
    EnvironmentFault
        If they cannot be written.
    """
    if any((folder / name).exists() for name in ("ca.pem", "server.pem", "server.key")):
        raise UsageError(f"there are certificates in {folder} already", hint="name another folder, or remove them")
    now = datetime.datetime.now(datetime.UTC)
    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    issuer = _name("ai4sdk rehearsal authority")

    def certificate(subject: x509.Name, key: ec.EllipticCurvePrivateKey, is_authority: bool) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(minutes=5))
        builder = builder.not_valid_after(now + datetime.timedelta(days=_DAYS))
        return builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)

    root = certificate(issuer, authority, True).sign(authority, hashes.SHA384())
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    leaf = certificate(_name(names[0]), server, False).add_extension(alternatives, critical=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.pem").write_bytes(root.public_bytes(Encoding.PEM))
        (folder / "server.pem").write_bytes(leaf.sign(authority, hashes.SHA384()).public_bytes(Encoding.PEM))
        _write_private(folder / "server.key", server)
    except OSError as error:
        raise EnvironmentFault(f"certificates cannot be written to {folder}: {error}", hint="name another") from error


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)

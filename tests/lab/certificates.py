"""Certificates of the lab's hosts, where libvirt and QEMU look for them: all of one authority, which nobody else has.

See https://libvirt.org/kbase/tlscerts.html.
"""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAYS = 2


class Authority:
    """Its own certificate is all that hosts have in common."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "virtflow lab")])
        unsigned = self._unsigned(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        self._certificate = unsigned.sign(self._key, hashes.SHA256())

    def furnish(self, directory: Path, address: str) -> None:
        """Write what the host of this address needs below ``directory``, which it will see as /etc/pki."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
        key = ec.generate_private_key(ec.SECP256R1())
        told = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        certificate = self._unsigned(name, key).add_extension(told, critical=False).sign(self._key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        authority, mine = self._certificate.public_bytes(pem), certificate.public_bytes(pem)
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        _write(directory / "CA/cacert.pem", authority)
        _write(directory / "qemu/ca-cert.pem", authority)
        for role in ("client", "server"):
            _write(directory / f"libvirt/{role}cert.pem", mine)
            _write(directory / f"libvirt/private/{role}key.pem", private)
            _write(directory / f"qemu/{role}-cert.pem", mine)
            _write(directory / f"qemu/{role}-key.pem", private)

    def _unsigned(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=_DAYS))
        )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

"""Certificates that trustme does not make: as boxes that inspect TLS make them."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Chain:
    """An authority and a server's certificate, in files."""

    ca_file: Path
    server: ssl.SSLContext


def inspection_box(directory: Path) -> Chain:
    """Return what inspection boxes make: no key identifiers, basicConstraints not critical."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Inspection Box")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])

    def begun(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
        )

    basic = x509.BasicConstraints(ca=True, path_length=None)
    authority = begun(ca_name, ca_key.public_key()).add_extension(basic, critical=False)
    ca = authority.sign(ca_key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    leaf = begun(name, key.public_key()).add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    ca_file, leaf_file = directory / "box.pem", directory / "leaf.pem"
    ca_file.write_bytes(ca.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    leaf_file.write_bytes(secret + leaf.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(leaf_file)
    return Chain(ca_file, server)

"""The certificate authorities that are trusted, and the strictness of the checks.

The event loop and the worker processes get their TLS context from `tls_context`, so that a host
that one of them trusts is trusted by the other as well.

satfs trusts the authorities of the system and those in `ca_file`. A Python that brings its own
OpenSSL may not find those of the system: then satfs reads the bundles of the distributions. Where
there are none either, as in a slim container, it takes those of certifi. It never adds certifi's to
the system's: an authority that the administrator has removed must stay untrusted.

Every Python checks chains as Python 3.13 does: `VERIFY_X509_STRICT` refuses certificates that
depart from RFC 5280, and `VERIFY_X509_PARTIAL_CHAIN` accepts an intermediate authority in `ca_file`
as the end of a chain (Python 3.13, "What's New", `ssl`). Proxies that inspect TLS often make
certificates that curl and browsers accept and a strict check refuses; `tls_strict = false` accepts
them, too.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from pathlib import Path
from typing import Final

from msgspec import Struct

from satfs.errors import BadSettings

#: Paths of the bundles of distributions: Debian, Fedora, openSUSE, RHEL, Alpine. OpenSSL's own
#: place is a link to one of these where Python and OpenSSL are the distribution's.
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
#: The file name of a certificate in OpenSSL's directory: the hash of its subject, and a number
#: (openssl-rehash(1)). OpenSSL reads such a file only when a chain needs it: before, its store
#: counts no authority.
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
#: Errors of strict checks alone (OpenSSL, x509_vfy.h: X509_V_ERR_PATHLEN_INVALID_FOR_NON_CA to
#: X509_V_ERR_EXTENSIONS_REQUIRE_VERSION_3).
_STRICT_CODES: Final = range(80, 94)


class Roots(Struct, frozen=True):
    """The origin of the authorities that are trusted besides those in `ca_file`."""

    place: str
    #: Whether they are the system's own; else they came with satfs.
    is_system: bool


def tls_context(ca_file: str | os.PathLike[str] | None, *, is_strict: bool) -> ssl.SSLContext:
    """Return the context for connections to the API and to object stores. Reads the disk.

    TLS 1.2 at least, the certificate and the host's name always checked.

    Raises:
        BadSettings: *ca_file* holds no usable certificates, or every user may change it.
    """
    context = ssl.create_default_context()
    _load_roots(context)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # distributions differ in their default
    if is_strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca_file is not None:
        try:
            if os.stat(ca_file).st_mode & stat.S_IWOTH:
                raise BadSettings(
                    f"ca_file (SATFS_CA_FILE): every user may change {ca_file}, and so the hosts"
                    f" that satfs trusts; run: chmod o-w {ca_file}"
                )
            context.load_verify_locations(cafile=os.fspath(ca_file))
        except (OSError, ssl.SSLError) as failure:
            raise BadSettings(
                f"ca_file (SATFS_CA_FILE): {ca_file} holds no usable certificates"
            ) from failure
    return context


def trusted_roots() -> Roots:
    """Return the origin of the authorities. Reads the disk."""
    return _load_roots(ssl.create_default_context())


def _load_roots(context: ssl.SSLContext) -> Roots:
    """Add authorities to *context*, unless OpenSSL has found the system's."""
    paths = ssl.get_default_verify_paths()
    if context.cert_store_stats()["x509_ca"]:
        return Roots(str(paths.cafile), is_system=True)
    directories = os.environ.get(paths.openssl_capath_env) or paths.openssl_capath
    for directory in directories.split(os.pathsep):
        if _is_hashed(directory):
            return Roots(directory, is_system=True)
    # A user who names authorities in the environment does not want those of the system.
    is_named = any(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    for bundle in () if is_named else _BUNDLES:
        try:
            context.load_verify_locations(cafile=bundle)
        except (OSError, ssl.SSLError):
            continue
        return Roots(bundle, is_system=True)
    import certifi  # seldom needed, and a worker starts while a reader waits

    context.load_verify_locations(cafile=certifi.where())
    return Roots("certifi", is_system=False)


def _is_hashed(directory: str) -> bool:
    try:
        return any(_HASHED.fullmatch(entry.name) for entry in Path(directory).iterdir())
    except OSError:
        return False


def is_strictness(failure: ssl.SSLCertVerificationError) -> bool:
    """Return whether a check that is not strict may accept the certificate."""
    return getattr(failure, "verify_code", 0) in _STRICT_CODES


def untrusted(failure: ssl.SSLCertVerificationError) -> str:
    """Return the message why a certificate is refused, and which setting may help."""
    reason = f"its certificate is not trusted ({getattr(failure, 'verify_message', failure)})"
    if is_strictness(failure):
        reason += "; tls_strict = false (SATFS_TLS_STRICT=false) checks as curl and browsers do"
    return reason

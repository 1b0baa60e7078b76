"""The certificate authorities that are trusted: of the system, settings and environment."""

from __future__ import annotations

import os
import shlex
import ssl
import stat
from collections.abc import Iterator, Mapping
from typing import Final

from satfs.doctor.findings import Area, Check, Finding
from satfs.errors import BadSettings
from satfs.net.trust import trusted_roots
from satfs.settings import Settings

#: Variables that other programs read for what is SATFS_CA_FILE here.
_OTHERS_CA: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO")
#: OpenSSL's own, which hold for us, too.
_OPENSSL_CA: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")

_AUTHORITIES = Check(Area.NETWORK, "authorities", BadSettings)


def authorities(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Report the certificate authorities that are trusted. Reads the files that name them."""
    broken = False
    for variable in _OPENSSL_CA:
        path = environment.get(variable)
        if path and not os.path.exists(path):
            broken = True
            yield _AUTHORITIES.warning(
                f"{variable} names {path}, which is not there.",
                "OpenSSL then trusts fewer authorities than it should.",
                "Correct the variable, or remove it:",
                f"unset {variable}",
            )
    if settings.ca_file is not None and (wrong := _unusable(settings)) is not None:
        yield wrong
        return
    foreign = [name for name in _OTHERS_CA if environment.get(name)]
    if foreign and settings.ca_file is None and not environment.get("SSL_CERT_FILE"):
        path = shlex.quote(environment[foreign[0]])
        yield _AUTHORITIES.note(
            f"{foreign[0]} is set, but satfs does not read it.",
            "Other programs here trust authorities of their own, a company's perhaps.",
            "If certificates are refused below:",
            f"export SATFS_CA_FILE={path}",
        )
    elif not broken:
        more = f", and those in {settings.ca_file}" if settings.ca_file is not None else ""
        if trusted_roots().is_system:
            yield _AUTHORITIES.fine(f"The system's authorities are trusted{more}.")
        else:
            yield _AUTHORITIES.note(
                f"This system has no authorities; those that certifi ships are trusted{more}.",
                "An authority that was added to the system, a company's perhaps, is not known.",
                "Install the system's, if certificates are refused below:",
                "sudo apt install ca-certificates",
            )
    if not settings.tls_strict:
        yield _AUTHORITIES.note(
            "Certificates are checked less strictly (SATFS_TLS_STRICT=false).",
            "Some that depart from RFC 5280 are accepted, as by curl and browsers.",
        )


def _unusable(settings: Settings) -> Finding | None:
    path = settings.ca_file
    assert path is not None  # noqa: S101 - looked at only where it is set
    try:
        if path.stat().st_mode & stat.S_IWOTH:
            return _AUTHORITIES.failure(
                f"Every user may change {path} (SATFS_CA_FILE).",
                "A user who changes it decides which servers satfs trusts; no connection is made.",
                "Remove the permission of all but its owner:",
                f"chmod o-w {shlex.quote(str(path))}",
            )
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        reason = "holds no certificates"
    except OSError as failure:
        reason = f"cannot be read: {os.strerror(failure.errno or 0)}"
    else:
        return None
    return _AUTHORITIES.failure(
        f"{path} (SATFS_CA_FILE) {reason}.",
        "No connection is made before it can be used.",
        "It must be a PEM file. Correct the setting, or remove it:",
        f"openssl x509 -in {shlex.quote(str(path))} -noout -subject",
        "unset SATFS_CA_FILE",
    )

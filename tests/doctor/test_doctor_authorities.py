"""Certificate authorities, when the settings that name them are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from doctor.conftest import only

from satfs.doctor.authorities import authorities
from satfs.doctor.findings import Severity
from satfs.errors import BadSettings
from satfs.settings import load_settings


def test_a_ca_file_that_holds_no_certificate_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")

    for path, words in ((tmp_path / "ca.pem", "holds no"), (tmp_path / "none", "cannot be read")):
        finding = only(authorities(load_settings({}, ca_file=path), {}))
        assert (finding.severity, finding.cause) == (Severity.FAILURE, BadSettings)
        assert words in finding.statement


def test_a_ca_file_that_everybody_may_change_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    path.chmod(0o646)

    finding = only(authorities(load_settings({}, ca_file=path), {}))

    assert (finding.severity, finding.cause) == (Severity.FAILURE, BadSettings)
    assert f"Every user may change {path}" in finding.statement
    assert finding.commands == (f"chmod o-w {path}",)


def test_a_ca_file_that_holds_one_is_fine(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")

    finding = only(authorities(load_settings({}, ca_file=tmp_path / "ca.pem"), {}))

    assert finding.severity is Severity.OK
    assert str(tmp_path / "ca.pem") in finding.statement


def test_a_system_without_authorities_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))

    finding = only(authorities(load_settings({}), {}))
    assert finding.severity is Severity.NOTE
    assert "certifi" in finding.statement


def test_a_relaxed_check_is_noted() -> None:
    *_, finding = authorities(load_settings({}, tls_strict=False), {})

    assert finding.severity is Severity.NOTE
    assert "SATFS_TLS_STRICT=false" in finding.statement


def test_variables_that_only_others_read_are_noted() -> None:
    environment = {"REQUESTS_CA_BUNDLE": "/etc/ssl/company.pem"}

    finding = only(authorities(load_settings({}), environment))
    assert finding.severity is Severity.NOTE
    assert finding.commands == ("export SATFS_CA_FILE=/etc/ssl/company.pem",)


def test_a_variable_of_openssl_that_leads_nowhere_is_warned_of() -> None:
    finding = only(authorities(load_settings({}), {"SSL_CERT_FILE": "/nowhere/ca.pem"}))

    assert finding.severity is Severity.WARNING
    assert finding.commands == ("unset SSL_CERT_FILE",)

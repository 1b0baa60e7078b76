"""The Kubernetes manifests of the documents: valid, and of one mind about names and paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from satfs.settings import Settings

MANIFESTS = Path(__file__).parents[2] / "docs" / "kubernetes"
#: The last three minor releases of Kubernetes that kubernetes-validate has schemas of.
_MAJOR, _MINOR = (int(part) for part in kubernetes_validate.latest_version().split(".")[:2])
VERSIONS = [f"{_MAJOR}.{_MINOR - back}" for back in range(3)]
RESOURCES = sorted(set(MANIFESTS.glob("*.yaml")) - {MANIFESTS / "kustomization.yaml"})


def load(path: Path) -> dict[str, Any]:
    """Return the one document of a manifest."""
    found = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", RESOURCES, ids=lambda path: path.stem)
def test_a_manifest_is_valid(path: Path, version: str) -> None:
    kubernetes_validate.validate(load(path), version, strict=True)


def test_a_manifest_with_an_unknown_field_is_not_valid() -> None:
    manifest = load(MANIFESTS / "daemonset.yaml")
    manifest["spec"]["unknown"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


def test_the_base_has_all_that_is_no_example() -> None:
    named = load(MANIFESTS / "kustomization.yaml")["resources"]
    assert sorted(named) == [
        path.name for path in RESOURCES if not path.name.endswith(".example.yaml")
    ]


def test_the_mounter_shares_the_directory_above_the_mount_and_the_reader_sees_it() -> None:
    mounter = load(MANIFESTS / "daemonset.yaml")["spec"]["template"]["spec"]
    reader = load(MANIFESTS / "consumer.example.yaml")["spec"]
    paths, propagations = zip(*(shared(pod) for pod in (mounter, reader)), strict=True)

    assert paths[0] == paths[1]
    assert propagations == ("Bidirectional", "HostToContainer")
    (container,) = mounter["containers"]
    mounted = container["volumeMounts"][0]["mountPath"]
    assert f"{mounted}/aleph" in container["args"][0]
    # The kubelet ends a container that preStop keeps for longer.
    wait_s = int(container["lifecycle"]["preStop"]["exec"]["command"][-1].rpartition("sleep ")[2])
    assert wait_s < mounter["terminationGracePeriodSeconds"]


def shared(pod: dict[str, Any]) -> tuple[str, str]:
    """Return the node's directory of a pod's volume that propagates mounts, and how it does."""
    (container,) = pod["containers"]
    volumes = {each["name"]: each["hostPath"]["path"] for each in pod["volumes"]}
    (found,) = (each for each in container["volumeMounts"] if "mountPropagation" in each)
    return volumes[found["name"]], found["mountPropagation"]


def test_the_settings_of_the_manifests_exist() -> None:
    given = [*load(MANIFESTS / "configmap.yaml")["data"]]
    given += load(MANIFESTS / "secret.example.yaml")["stringData"]
    known = {f"SATFS_{name.upper()}" for name in Settings.__struct_fields__}
    assert set(given) <= known

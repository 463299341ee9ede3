"""The RayService of the overlay serve: KubeRay's schema, Ray Serve's, our rules, and our own builder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from support.manifests import Manifests, by_kind, overlay, rendered, site
from test_kubernetes import crds, images

from deploy.k8s.rules import broken_rules
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.serving.token import TOKEN_VARIABLE

pytest_plugins = ["support.manifests"]

__all__ = ["crds"]

Service = dict[str, Any]


def the_service(manifests: Manifests) -> Service:
    (service,) = by_kind(manifests, "RayService")
    return service


def worker(service: Service) -> dict[str, Any]:
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return group["template"]["spec"]


def test_kuberay_takes_its_cluster(checkout: Path, crds: tuple[ModuleType, str]) -> None:
    """The CRD of RayService repeats the schema of RayCluster for ``rayClusterConfig``."""
    module, schemas = crds
    service = the_service(overlay(checkout, "serve"))
    cluster = {
        "apiVersion": service["apiVersion"],
        "kind": "RayCluster",
        "metadata": service["metadata"],
        "spec": service["spec"]["rayClusterConfig"],
    }
    assert set(service["spec"]) == {"serveConfigV2", "rayClusterConfig"}
    assert module.errors(cluster, schemas) == []
    # None where no CRD of RayService is at hand.
    assert module.errors(service, schemas) in (None, [])


def test_no_rule_is_broken_and_nothing_is_trained(checkout: Path) -> None:
    manifests = overlay(checkout, "serve")
    assert broken_rules(manifests, placeholders=True) == []
    assert not by_kind(manifests, "RayJob")


def test_names_and_images_are_those_that_are_made(checkout: Path) -> None:
    digest = "sha256:" + "b" * 64
    manifests = rendered(
        site(
            checkout,
            "served",
            "resources: [../../deploy/k8s/overlays/serve]\n"
            f"images:\n  - {{ name: gmp-atl, newName: here/gmp-atl, digest: '{digest}' }}\n"
            "configMapGenerator:\n  - name: gmp-atl-serve-env\n    namespace: gmp-atl\n"
            "    behavior: merge\n    literals: [GMP_ATL_SERVE_MODEL=s3://mine/model]\n",
        )
    )
    service = the_service(manifests)
    made = {m["metadata"]["name"]: m for m in by_kind(manifests, "ConfigMap")}
    (env,) = [name for name in made if name.startswith("gmp-atl-serve-env-")]
    assert made[env]["data"]["GMP_ATL_SERVE_MODEL"] == "s3://mine/model"
    assert yaml.dump(service).count(env) == 2, "head and worker"
    assert set(images(service)) == {f"here/gmp-atl@{digest}"}


def test_serve_takes_its_configuration_and_our_builder_its_arguments(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.serve.schema import ServeDeploySchema

    from gmp_atl_dist.serving import deployment

    service = the_service(overlay(checkout, "serve"))
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert application.import_path == f"{deployment.__name__}:build"
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token-of-the-tests-0123")
    monkeypatch.setenv(deployment.MODEL_VARIABLE, "s3://bucket/runs/finetune/abc/files")
    seen: list[deployment.ServeOptions] = []
    monkeypatch.setattr(deployment, "application", seen.append)
    deployment.build(application.args)
    (options,) = seen
    assert (options.label, options.device, options.limits.queue) == ("abc", "cpu", 256)

    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    cores = int(worker(service)["containers"][0]["resources"]["requests"]["cpu"])
    assert options.replicas <= group["replicas"] * (cores // options.cpus), "there is room"

    with pytest.raises(ConfigError, match="replica is not known"):
        deployment.build({"replica": 2})
    monkeypatch.delenv(deployment.MODEL_VARIABLE)
    with pytest.raises(ConfigError, match="no model to serve"):
        deployment.build({})
    monkeypatch.delenv(TOKEN_VARIABLE)
    with pytest.raises(ConfigError, match="needs a token"):
        deployment.build({})


MISTAKES: list[tuple[Callable[[Service], object], str]] = [
    (lambda s: s["spec"]["rayClusterConfig"].pop("authOptions"), "executes any job"),
    (
        lambda s: worker(s)["containers"][0]["env"].pop(),
        "model: GMP_ATL_SERVE_TOKEN must come from",
    ),
    (
        lambda s: worker(s)["containers"][0]["env"][-1].update(value="open", valueFrom=None),
        "must come from a Secret",
    ),
    (lambda s: worker(s)["containers"][0].pop("readinessProbe"), "KubeRay's own needs wget"),
    (lambda s: worker(s).pop("securityContext"), "model: runAsNonRoot must be true"),
    (
        lambda s: worker(s)["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"),
        "readOnlyRootFilesystem must be true",
    ),
    (lambda s: worker(s)["volumes"].pop(), "/dev/shm must be an emptyDir in memory"),
    (lambda s: worker(s).update(terminationGracePeriodSeconds=30), "too short for Ray's drain"),
    (lambda s: s["metadata"].update(name="x" * 60), "must be a DNS label"),
    (
        lambda s: s["spec"].update(
            serveConfigV2=s["spec"]["serveConfigV2"].replace("0.0.0.0", "::1")
        ),
        "no other pod reaches it",
    ),
    (lambda s: s["spec"].pop("serveConfigV2"), "no application"),
]


@pytest.mark.parametrize(("plant", "message"), MISTAKES, ids=[text for _, text in MISTAKES])
def test_a_planted_mistake_is_caught(
    checkout: Path, plant: Callable[[Service], object], message: str
) -> None:
    manifests = copy.deepcopy(overlay(checkout, "serve"))
    plant(the_service(manifests))

    assert any(message in problem for problem in broken_rules(manifests)), broken_rules(manifests)

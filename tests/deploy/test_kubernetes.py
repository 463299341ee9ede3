"""Manifests as kubectl renders them, against KubeRay's CRDs, Kubernetes' schemas, and our rules."""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from support.manifests import REPOSITORY, by_kind, kustomize, overlay, rendered, site, the_job

from deploy.k8s.rules import broken_rules, operator_rules
from gmp_atl_dist.config.file import load_config

OVERLAYS = sorted(p.name for p in (REPOSITORY / "deploy/k8s/overlays").iterdir() if p.is_dir())
RUNS = [name for name in OVERLAYS if name != "serve"]
"""Those that train."""
KUBERNETES = "1.32"

pytest_plugins = ["support.manifests"]


@pytest.fixture(scope="session")
def crds() -> tuple[ModuleType, str]:
    """A validator and KubeRay's CRDs, which are no part of the repository."""
    data = Path(os.environ.get("GMP_ATL_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    root = Path(os.environ.get("GMP_ATL_TEST_TOOLS") or data.parent)
    program, schemas = root / "tools/validate_ray.py", root / "schemas/kuberay-v1.7.0"
    if not (program.is_file() and schemas.is_dir()):
        pytest.skip("no CRDs of KubeRay here; set GMP_ATL_TEST_TOOLS to the folder with them")
    spec = importlib.util.spec_from_file_location("validate_ray", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, str(schemas)


def images(value: object) -> list[str]:
    """Every ``image`` below."""
    if isinstance(value, dict):
        own = [value["image"]] if isinstance(value.get("image"), str) else []
        return own + [image for below in value.values() for image in images(below)]
    return [image for below in value for image in images(below)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", RUNS)
def test_an_overlay_is_what_kuberay_takes(
    checkout: Path, crds: tuple[ModuleType, str], name: str
) -> None:
    module, schemas = crds
    manifests = overlay(checkout, name)

    assert module.errors(the_job(manifests), schemas) == []
    assert broken_rules(manifests, tags=name == "local") == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_what_kubernetes_takes(checkout: Path, name: str) -> None:
    validator = pytest.importorskip("kubernetes_validate")

    for manifest in overlay(checkout, name):
        if manifest["apiVersion"].partition("/")[0] not in ("ray.io", "kueue.x-k8s.io"):
            validator.validate(manifest, KUBERNETES, strict=True)
    namespace = yaml.safe_load((REPOSITORY / "deploy/k8s/namespace.yaml").read_text())
    validator.validate(namespace, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", RUNS)
def test_names_in_a_job_are_those_that_are_made(checkout: Path, name: str) -> None:
    manifests = overlay(checkout, name)
    made = {m["metadata"]["name"] for m in manifests if m["kind"] in ("ConfigMap", "Secret")}
    text = yaml.dump(the_job(manifests))
    asked = {word for word in text.split() if word.startswith("gmp-atl-")}

    # The Secret is the site's own but for the local overlay.
    known = made | {"gmp-atl-batch", "gmp-atl-gp3"} | (set() if name == "local" else {"gmp-atl-s3"})
    assert {a for a in asked if "@" not in a} <= known
    assert len([a for a in asked if a in made]) >= 3


@pytest.mark.parametrize("name", RUNS)
def test_what_a_run_asks_for_is_there(checkout: Path, name: str) -> None:
    """Every process finds a group that advertises its resource and has its cores and GPUs."""
    manifests = overlay(checkout, name)
    settings = {m["metadata"]["name"].rsplit("-", 1)[0]: m for m in by_kind(manifests, "ConfigMap")}
    lines = [
        line
        for key, text in sorted(settings["gmp-atl-run"]["data"].items())
        if key.endswith(".set")
        for line in text.splitlines()
        if line and not line.startswith("#")
    ]
    env = settings["gmp-atl-env"]["data"]
    path = REPOSITORY / "configs" / env["GMP_ATL_CONFIG"]
    config = load_config(path, [*lines, f"runtime.corpus={env['GMP_ATL_CORPUS']}"])
    groups = the_job(manifests)["spec"]["rayClusterSpec"]["workerGroupSpecs"]

    runtime = config.runtime
    asked: list[tuple[dict[str, float], float, float, int]] = [
        (w.resources, w.cpus, w.gpus, w.max_workers)
        for w in (runtime.ingest, runtime.extract, runtime.cluster, runtime.label, runtime.train)
    ]
    readers = runtime.extract.readers or 1
    asked.append((runtime.extract.reader_resources, runtime.extract.reader_cpus, 0.0, readers))
    for resources, cpus, gpus, processes in asked:
        (resource,) = resources
        (group,) = [g for g in groups if resource in g["resources"]]
        requests = group["template"]["spec"]["containers"][0]["resources"]["requests"]
        pod_cpus, pod_gpus = int(requests["cpu"]), int(requests.get("nvidia.com/gpu", 0))
        fits = min(pod_cpus // cpus if cpus else 999, pod_gpus // gpus if gpus else 999)
        assert fits * group["maxReplicas"] >= processes, (resource, processes)
    assert config.science() == load_config(path).science()


def test_all_configurations_travel() -> None:
    listed = yaml.safe_load((REPOSITORY / "configs/kustomization.yaml").read_text())
    (generator,) = listed["configMapGenerator"]

    assert sorted(generator["files"]) == sorted(p.name for p in REPOSITORY.glob("configs/*.toml"))


def test_no_secret_is_committed(checkout: Path) -> None:
    secrets = {name: by_kind(overlay(checkout, name), "Secret") for name in OVERLAYS}

    assert {name for name, found in secrets.items() if found} == {"local"}
    files = ["git", "ls-files", "deploy/k8s"]
    listed = subprocess.run(files, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert not [f for f in listed.stdout.split() if f.endswith(".env") and "s3" in f]


def test_components_combine_and_images_are_named_in_one_place(
    checkout: Path, crds: tuple[ModuleType, str]
) -> None:
    module, schemas = crds
    digest = "sha256:" + "a" * 64
    parts = ("spot", "spot-gang", "efa", "kueue")
    manifests = rendered(
        site(
            checkout,
            "all",
            "resources: [../../deploy/k8s/overlays/eks]\ncomponents:\n"
            + "".join(f"  - ../../deploy/k8s/components/{part}\n" for part in parts)
            + "images:\n"
            + "".join(
                f"  - {{ name: {name}, newName: here/{name}, digest: '{digest}' }}\n"
                for name in ("gmp-atl", "gmp-atl-gpu")
            ),
        )
    )
    job = the_job(manifests)

    assert module.errors(job, schemas) == []
    assert broken_rules(manifests) == []
    assert set(images(job)) == {f"here/gmp-atl@{digest}", f"here/gmp-atl-gpu@{digest}"}
    gang = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["template"]["spec"]
    assert gang["affinity"].keys() == {"nodeAffinity", "podAffinity"}
    assert gang["containers"][0]["resources"]["limits"]["vpc.amazonaws.com/efa"] == "4"
    assert any(e.get("name") == "FI_PROVIDER" for e in gang["containers"][0]["env"])
    assert "FI_PROVIDER" not in yaml.dump(job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0])


def test_a_schedule_makes_the_same_job(checkout: Path) -> None:
    base = the_job(rendered(checkout / "deploy/k8s/base"))
    manifests = overlay(checkout, "scheduled")

    assert the_job(manifests)["spec"] == base["spec"]
    assert not by_kind(manifests, "RayJob")


def test_a_component_refuses_groups_in_another_order(checkout: Path) -> None:
    folder = site(
        checkout,
        "reordered",
        "resources: [../../deploy/k8s/base]\npatches:\n  - target: { kind: RayJob }\n    patch: |-\n"
        "      - { op: move, from: /spec/rayClusterSpec/workerGroupSpecs/1,"
        " path: /spec/rayClusterSpec/workerGroupSpecs/0 }\n",
    )
    wrong = site(
        checkout,
        "wrong",
        "resources: [../reordered]\ncomponents: [../../deploy/k8s/components/one-zone]\n",
    )

    rendered(folder)
    done = kustomize(wrong)
    assert done.returncode != 0
    assert "groupName" in done.stderr


Mistake = Callable[[dict[str, Any]], object]


def cluster(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["rayClusterSpec"]


def head(job: dict[str, Any]) -> dict[str, Any]:
    return cluster(job)["headGroupSpec"]


def gang(job: dict[str, Any]) -> dict[str, Any]:
    return cluster(job)["workerGroupSpecs"][1]


def pod(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]


def more_groups(job: dict[str, Any]) -> None:
    groups = cluster(job)["workerGroupSpecs"]
    groups += [{**copy.deepcopy(groups[0]), "groupName": f"more{i}"} for i in range(14)]


MISTAKES: list[tuple[Mistake, str]] = [
    (lambda j: j["spec"].update(shutdownAfterJobFinishes=False), "ttlSecondsAfterFinished needs"),
    (
        lambda j: j["spec"].update(deletionStrategy={"deletionRules": [{}]}),
        "deletionRules cannot be combined",
    ),
    (
        lambda j: j["spec"].update(clusterSelector={"a": "b"}),
        "backoffLimit cannot be combined with cluster",
    ),
    (
        lambda j: j["spec"].update(submissionMode="InteractiveMode"),
        "backoffLimit is not allowed in Interactive",
    ),
    (
        lambda j: j["spec"].update(submissionMode="SidecarMode"),
        "submitterPodTemplate is not allowed in SidecarMode",
    ),
    (
        lambda j: j["spec"].update(activeDeadlineSeconds=0),
        "activeDeadlineSeconds must be greater than 0",
    ),
    (lambda j: j["metadata"].update(name="a" * 48), "must be a DNS label of at most 47"),
    (lambda j: cluster(j).update(rayVersion="2.51.1"), "needs rayVersion 2.52"),
    (lambda j: cluster(j).update(tlsOptions={"enabled": True}), "tlsOptions needs an alpha"),
    (lambda j: pod(gang(j)).update(restartPolicy="Always"), "restartPolicy must be Never with"),
    (
        lambda j: gang(j).update(rayStartParams={"num-cpus": "3"}),
        "resources are in rayStartParams and in the group",
    ),
    (lambda j: gang(j).update(rayStartParams={"block": True}), "rayStartParams must be strings"),
    (lambda j: gang(j).update(rayStartParams={"labels": "a=b"}), "use the group's labels"),
    (lambda j: gang(j).update(minReplicas=3), "minReplicas 3 is greater than maxReplicas 2"),
    (lambda j: gang(j).update(groupName="extract"), "2 groups have this name"),
    (lambda j: gang(j).update(groupName="head"), "a worker group must not be named head"),
    (lambda j: j["metadata"].pop("annotations"), "autoscaling needs the annotation"),
    (more_groups, "17 worker groups; at most 16"),
    (lambda j: j["metadata"]["labels"].update({"volcano.sh/queue-name": "q"}), "Volcano: gang"),
    (lambda j: cluster(j).pop("authOptions"), "the job API executes any job"),
    (lambda j: head(j)["rayStartParams"].update({"num-cpus": "2"}), 'num-cpus must be "0"'),
    (
        lambda j: head(j).update(serviceType="LoadBalancer"),
        "the dashboard can be reached from outside",
    ),
    (lambda j: j["spec"].update(entrypoint="a && b"), "KubeRay inserts it into a shell"),
    (lambda j: j["spec"].update(backoffLimit=0), "backoffLimit: must be at least 1"),
    (lambda j: pod(gang(j)).update(terminationGracePeriodSeconds=30), "too short for Ray's drain"),
    (
        lambda j: pod(gang(j))["containers"][0].update(env=[]),
        "gang: RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO must be",
    ),
    (lambda j: pod(gang(j)).pop("securityContext"), "gang: runAsNonRoot must be true"),
    (
        lambda j: pod(gang(j)).update(automountServiceAccountToken=True),
        "needs no token of the API server",
    ),
    (lambda j: pod(gang(j))["volumes"].pop(1), "/dev/shm must be an emptyDir in memory"),
    (
        lambda j: pod(gang(j))["volumes"][1]["emptyDir"].update(sizeLimit="200Gi"),
        "not less than the container's memory limit",
    ),
    (
        lambda j: pod(gang(j))["containers"][0]["resources"]["requests"].update(memory="1Gi"),
        "request and limit must be equal",
    ),
    (
        lambda j: pod(gang(j))["containers"][0]["securityContext"].update(
            readOnlyRootFilesystem=False
        ),
        "readOnlyRootFilesystem must be true",
    ),
    (
        lambda j: pod(head(j))["containers"][0].update(image="gmp-atl:latest"),
        "must be named by digest",
    ),
    (
        lambda j: gang(j)["template"]["metadata"].pop("labels"),
        "the label app.kubernetes.io/part-of is missing",
    ),
    (lambda j: j["spec"].pop("submitterPodTemplate"), "RayJob/submitter: runAsNonRoot"),
    (lambda j: cluster(j)["autoscalerOptions"].pop("securityContext"), "autoscaler: readOnlyRoot"),
]


@pytest.mark.parametrize(("plant", "message"), MISTAKES, ids=[text for _, text in MISTAKES])
def test_a_planted_mistake_is_caught(checkout: Path, plant: Mistake, message: str) -> None:
    manifests = overlay(checkout, "kueue")
    (job,) = by_kind(manifests, "RayJob")
    plant(job)

    assert any(message in problem for problem in broken_rules(manifests)), broken_rules(manifests)


def test_a_missing_policy_an_open_service_and_a_budget_are_caught(checkout: Path) -> None:
    manifests = overlay(checkout, "local")
    for manifest in manifests:
        if manifest["kind"] == "Service":
            manifest["spec"]["type"] = "NodePort"
        if manifest["kind"] == "PodDisruptionBudget":
            manifest["spec"] = {"maxUnavailable": 1}
    manifests = [m for m in manifests if m["metadata"]["name"] != "gmp-atl-deny"]

    assert broken_rules(manifests, tags=True) == [
        "Service/gmp-atl-s3: type NodePort can be reached from outside the cluster",
        "PodDisruptionBudget/gmp-atl-head: minAvailable must be a number, because the pods belong to a "
        "custom resource",
        "no NetworkPolicy denies all traffic by default",
    ]


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (lambda j: head(j)["rayStartParams"].update({"num-cpus": 0}), "is not of type 'string'"),
        (lambda j: j["spec"].update(backofLimit=3), "Additional properties are not allowed"),
        (lambda j: cluster(j)["authOptions"].update(mode="on"), "is not one of"),
        (lambda j: pod(gang(j))["containers"][0].update(resource={}), "Additional properties"),
    ],
)
def test_a_planted_mistake_is_caught_by_the_schema(
    checkout: Path, crds: tuple[ModuleType, str], plant: Mistake, message: str
) -> None:
    module, schemas = crds
    job = the_job(overlay(checkout, "gpu"))
    plant(job)

    assert any(message in error for error in module.errors(job, schemas))


def test_a_job_without_a_queue_needs_nothing_of_it(checkout: Path) -> None:
    job = the_job(overlay(checkout, "gpu"))

    assert list(operator_rules(job)) == []

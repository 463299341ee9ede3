"""Manifests as kubectl renders them, against KubeRay's CRDs, Kubernetes' schemas, and our rules."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from support.manifests import REPOSITORY, by_kind, kustomize, overlay, rendered, site, the_job

from deploy.k8s.operator_rules import operator_rules
from deploy.k8s.rules import broken_rules
from gmp_atl_dist.config.sweep import load_sweep

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
    assert broken_rules(manifests, tags=name == "local", placeholders=True) == []


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


def test_all_configurations_travel() -> None:
    listed = yaml.safe_load((REPOSITORY / "configs/kustomization.yaml").read_text())
    (generator,) = listed["configMapGenerator"]

    files = [p.name for p in REPOSITORY.glob("configs/*.toml")]
    sweeps = [p.name for p in REPOSITORY.glob("configs/sweeps/*.toml")]
    assert sorted(generator["files"]) == sorted(
        [*files, *(f"sweep-{name}=sweeps/{name}" for name in sweeps)]
    )


@pytest.mark.parametrize(
    ("mounted", "file", "command"),
    [("demo.toml", "demo.toml", "run"), ("sweep-emodb.toml", "sweeps/emodb.toml", "sweep")],
)
def test_the_entrypoint_runs_a_configuration_or_a_sweep(
    tmp_path: Path, mounted: str, file: str, command: str
) -> None:
    for folder in ("run", "configs", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(REPOSITORY / "deploy/k8s/base/run.sh", tmp_path / "run")
    shutil.copy(REPOSITORY / "configs" / file, tmp_path / "configs" / mounted)
    (tmp_path / "run" / "10.set").write_text("# a comment\nruntime.train.workers=2\n")
    program = tmp_path / "bin" / "gmp-atl"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    names = {"GMP_ATL_CONFIG": mounted, "GMP_ATL_ROOT": "s3://b/r", "GMP_ATL_CORPUS": "s3://b/c"}
    found = subprocess.run(
        ["bash", tmp_path / "run" / "run.sh"],
        env=names | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert [line.split()[0] for line in found] == ["doctor", command]
    assert found[0].endswith(" --wait-s 300"), "a store or a node that comes back has time"
    assert found[1].endswith(
        "--root s3://b/r --set runtime.corpus=s3://b/c --set runtime.train.workers=2"
    )
    if command == "sweep":
        # As it is mounted: its base and its arms are found by their shipped names.
        assert load_sweep(tmp_path / "configs" / mounted).name == "emodb"


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
    assert broken_rules(manifests, placeholders=True) == []
    assert set(images(job)) == {f"here/gmp-atl@{digest}", f"here/gmp-atl-gpu@{digest}"}
    gang = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["template"]["spec"]
    assert gang["affinity"].keys() == {"nodeAffinity", "podAffinity"}
    assert gang["containers"][0]["resources"]["limits"]["vpc.amazonaws.com/efa"] == "4"
    assert any(e.get("name") == "FI_PROVIDER" for e in gang["containers"][0]["env"])
    assert "FI_PROVIDER" not in yaml.dump(job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0])


def egress(manifests: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    policies = by_kind(manifests, "NetworkPolicy")
    return {p["metadata"]["name"]: p["spec"].get("egress", []) for p in policies}


def test_components_open_the_addresses_that_they_name(checkout: Path) -> None:
    parts = ("pod-identity", "s3-port", "restricted-egress")
    folder = site(
        checkout,
        "addresses",
        "resources: [../../deploy/k8s/overlays/gke]\ncomponents:\n"
        + "".join(f"  - ../../deploy/k8s/components/{part}\n" for part in parts),
    )
    manifests = rendered(folder)
    rules = egress(manifests)

    assert broken_rules(manifests, placeholders=True) == []
    (identity,) = rules["gmp-atl-pod-identity"]
    cidrs = [to["ipBlock"]["cidr"] for to in identity["to"]]
    assert (cidrs, identity["ports"]) == (["169.254.170.23/32", "fd00:ec2::23/128"], [{"port": 80}])
    (store,) = rules["gmp-atl-s3-port"]
    assert store["ports"] == [{"port": 9000}]
    assert [to["ipBlock"]["except"] for to in store["to"]] == [
        ["169.254.169.254/32"],
        ["fd00:ec2::254/128"],
    ]
    https = [rule for rule in rules["gmp-atl"] if {"port": 443} in rule.get("ports", [])]
    assert https == [{"to": [{"ipBlock": {"cidr": "CHANGE-ME/32"}}], "ports": [{"port": 443}]}]
    assert any("spec.egress.2.to.0.ipBlock.cidr" in p for p in broken_rules(manifests))
    metadata = [r for r in rules["gmp-atl-metadata"] if "169.254.169.254" in yaml.dump(r["to"])]
    assert [p["port"] for rule in metadata for p in rule["ports"]] == [80, 53, 53]
    assert settings(manifests, "gmp-atl-env")["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("name", "scheme", "annotation"),
    [
        ("gke", "gs://", "iam.gke.io/gcp-service-account"),
        ("aks", "az://", "azure.workload.identity/client-id"),
    ],
)
def test_pods_of_clouds_have_identities_and_no_keys(
    checkout: Path, name: str, scheme: str, annotation: str
) -> None:
    manifests = overlay(checkout, name)

    env = settings(manifests, "gmp-atl-env")
    assert env["GMP_ATL_ROOT"].startswith(scheme)
    assert env["GMP_ATL_CORPUS"].startswith(scheme)
    assert not by_kind(manifests, "Secret")
    (account,) = by_kind(manifests, "ServiceAccount")
    assert annotation in account["metadata"]["annotations"]
    # What is still to be filled in is named.
    assert any("CHANGE-ME" in problem for problem in broken_rules(manifests))
    cluster = the_job(manifests)["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    labels = [pod["template"]["metadata"]["labels"] for pod in pods]
    used = [pod.get("azure.workload.identity/use") == "true" for pod in labels]
    assert len(used) == 4
    assert used == [name == "aks"] * 4


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


def stop_at_once(job: dict[str, Any]) -> None:
    container = pod(head(job))["containers"][0]
    container["env"] = [e for e in container["env"] if e["name"] != "RAY_JOB_STOP_WAIT_TIME_S"]


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
    (lambda j: j["spec"].pop("preRunningDeadlineSeconds"), "preRunningDeadlineSeconds: is missing"),
    (lambda j: pod(head(j)).pop("tolerations"), "head: tolerations: node.kubernetes.io/not-ready"),
    (
        lambda j: pod(gang(j))["tolerations"][1].update(tolerationSeconds=300),
        "gang: tolerations: node.kubernetes.io/unreachable must be tolerated for at most 60 s",
    ),
    (stop_at_once, "head: RAY_JOB_STOP_WAIT_TIME_S is 3; set it between 60 and 110 s"),
    (
        lambda j: gang(j).update(resources={"gnag": "1"}),
        "runtime.train: asks for the resource 'gang', which no worker group advertises",
    ),
    (
        lambda j: gang(j).update(minReplicas=0, maxReplicas=0),
        "runtime.train: 1 processes of 4 cores",
    ),
    (
        lambda j: gang(j).update(maxReplicas=20),
        "ResourceQuota/gmp-atl: pods is 20, and the run asks for up to 30",
    ),
    (
        lambda j: gang(j).update(maxReplicas=20),
        "requests.nvidia.com/gpu is 12, and the run asks for up to 84",
    ),
    (
        lambda j: pod(head(j))["containers"][0].update(image="gmp-atl@sha256:" + 64 * "0"),
        "containers.0.image still has the placeholder in 'gmp-atl@sha256:000...'",
    ),
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


def settings(manifests: list[dict[str, Any]], name: str) -> dict[str, str]:
    """The data of a ConfigMap, whose name ends in a hash."""
    (found,) = [
        m for m in by_kind(manifests, "ConfigMap") if m["metadata"]["name"].startswith(name + "-")
    ]
    return found["data"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "gmp-atl-run",
            "runtime.train.resources={ gnag = 0.001 }",
            "runtime.train: asks for the resource 'gnag', which no worker group advertises; the groups "
            "advertise decode, extract, gang",
        ),
        ("gmp-atl-run", "runtime.train.cpus=21", "runtime.train: 1 processes of 21 cores"),
        (
            "gmp-atl-run",
            "runtime.extract.readers=40",
            "runtime.extract.reader_resources: 40 processes of 1 cores",
        ),
        ("gmp-atl-run", "runtime.train.wrokers=2", "the settings of the run: "),
        ("gmp-atl-env", "mine.toml", "GMP_ATL_CONFIG: 'mine.toml' is no file of the ConfigMap"),
    ],
)
def test_settings_that_the_groups_cannot_meet_are_caught(
    checkout: Path, file: str, text: str, message: str
) -> None:
    manifests = copy.deepcopy(overlay(checkout, "gpu"))
    data = settings(manifests, file)
    data["GMP_ATL_CONFIG" if file == "gmp-atl-env" else "90-site.set"] = text

    problems = broken_rules(manifests, placeholders=True)
    assert [p for p in problems if p.startswith(message)], problems


def test_a_sweep_asks_for_what_its_arms_ask_for(checkout: Path) -> None:
    manifests = copy.deepcopy(overlay(checkout, "gpu"))
    settings(manifests, "gmp-atl-env")["GMP_ATL_CONFIG"] = "sweep-iemocap.toml"
    assert broken_rules(manifests, placeholders=True) == []

    settings(manifests, "gmp-atl-run")["90-site.set"] = "runtime.train.cpus=21"
    (problem,) = broken_rules(manifests, placeholders=True)
    assert problem.startswith("runtime.train: 1 processes")


@pytest.mark.parametrize("name", RUNS)
def test_placeholders_are_named(checkout: Path, name: str) -> None:
    problems = broken_rules(overlay(checkout, name), tags=True)

    assert all("still has the placeholder" in problem for problem in problems)
    images = [p for p in problems if "@sha256:000..." in p]
    roots = [p for p in problems if "data.GMP_ATL_ROOT" in p and "'s3://CHANGE-ME/runs'" in p]
    # One machine has its own image and store.
    assert (not images and not roots) == (name == "local")


def test_the_checker_runs_by_its_path(checkout: Path) -> None:
    done = kustomize(checkout / "deploy/k8s/overlays/gpu")
    program = REPOSITORY / "deploy/k8s/rules.py"

    def checked(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(program), *options]
        return subprocess.run(
            command, input=done.stdout, capture_output=True, text=True, cwd=checkout, check=False
        )

    allowed, found = checked("--placeholders"), checked()
    assert (allowed.returncode, allowed.stdout) == (0, "no rule is broken\n")
    assert found.returncode == 1
    assert "RayJob/gmp-atl: spec.submitterPodTemplate" in found.stdout


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

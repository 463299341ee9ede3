"""The rules that keep a run safe and able to resume."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from deploy.k8s.manifests import Manifest, amount, groups_of, pods_of, ray_jobs

_PART_OF = ("app.kubernetes.io/part-of", "gmp-atl")
_DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
_DRAIN_MARGIN_S = 10
_STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
_LEAST_STOP_WAIT_S = 60
_MOST_TOLERATED_S = 60
_HIDES_GPUS = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"


def house_rules(manifests: Sequence[Manifest], *, tags: bool = False) -> Iterator[str]:
    """The rules that keep a run safe and able to resume, as far as they are broken."""
    for job in ray_jobs(manifests):
        yield from _run_rules(job["spec"])
    for manifest in manifests:
        for where, labels, pod in pods_of(manifest):
            if labels.get(_PART_OF[0]) != _PART_OF[1]:
                yield f"{where}: the label {_PART_OF[0]} is missing, which the NetworkPolicy selects"
            yield from (f"{where}: {problem}" for problem in _pod_rules(where, pod, tags))
        yield from _object_rules(manifest)
    denied = [
        set(m["spec"].get("policyTypes", ()))
        for m in manifests
        if m["kind"] == "NetworkPolicy"
        and not m["spec"]["podSelector"]
        and not m["spec"].get("ingress")
    ]
    if {"Ingress", "Egress"} not in denied:
        yield "no NetworkPolicy denies all traffic by default"


def _run_rules(spec: Manifest) -> Iterator[str]:
    cluster = spec.get("rayClusterSpec") or {}
    yield from head_rules(cluster)
    if re.search(r"[&|;<>$`'\"\n]", spec.get("entrypoint", "")):
        yield "entrypoint: must be one plain command, because KubeRay inserts it into a shell"
    if spec.get("backoffLimit", 0) < 1:
        yield "backoffLimit: must be at least 1, so that a run that lost its head is resumed"
    if "preRunningDeadlineSeconds" not in spec:
        yield (
            "preRunningDeadlineSeconds: is missing, and a wrong image or a group that does not fit would "
            "hold pods for as long as activeDeadlineSeconds allows"
        )
    yield from drain_rules(cluster)
    yield from _stop_rules(cluster)
    for name, group in groups_of(cluster).items():
        yield from (f"{name}: {problem}" for problem in _eviction_rules(group))


def head_rules(cluster: Manifest) -> Iterator[str]:
    """The job API of a head is closed to everybody else."""
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        yield "authOptions.mode must be token: the job API executes any job that it receives"
    head = cluster["headGroupSpec"]
    if (head.get("rayStartParams") or {}).get("num-cpus") != "0":
        yield 'head: num-cpus must be "0", so that no task runs beside the driver'
    if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
        yield "head: the dashboard can be reached from outside the cluster"


def drain_rules(cluster: Manifest) -> Iterator[str]:
    """Pods end after they have drained, and hide GPUs that were not asked for."""
    for name, group in groups_of(cluster).items():
        pod = group["template"]["spec"]
        env = {e["name"]: e.get("value") for e in pod["containers"][0].get("env", ())}
        grace_s = pod.get("terminationGracePeriodSeconds", 30)
        if grace_s < float(env.get(_DRAIN) or 30) + _DRAIN_MARGIN_S:
            yield f"{name}: terminationGracePeriodSeconds {grace_s} is too short for Ray's drain ({_DRAIN})"
        if env.get(_HIDES_GPUS) != "1":
            yield f'{name}: {_HIDES_GPUS} must be "1", or processes without a GPU see those of the pod'


def _stop_rules(cluster: Manifest) -> Iterator[str]:
    """A deleted or stopped job gets SIGTERM, and SIGKILL after this time. A training saves a checkpoint."""
    pod = cluster["headGroupSpec"]["template"]["spec"]
    env = {e["name"]: e.get("value") for e in pod["containers"][0].get("env", ())}
    waits_s = float(env.get(_STOP_WAIT) or 3)
    most_s = pod.get("terminationGracePeriodSeconds", 30) - _DRAIN_MARGIN_S
    if not _LEAST_STOP_WAIT_S <= waits_s <= most_s:
        yield (
            f"head: {_STOP_WAIT} is {waits_s:g}; set it between {_LEAST_STOP_WAIT_S} and {most_s:g} s, so "
            f"that a training can save a checkpoint when the job is deleted, before the pod is killed"
        )


def _eviction_rules(group: Manifest) -> Iterator[str]:
    """KubeRay asks a head that is gone for 300 s, and then ends the job for good (see kubernetes.md)."""
    tolerated_s = {
        t.get("key"): t.get("tolerationSeconds")
        for t in group["template"]["spec"].get("tolerations", ())
        if t.get("effect") == "NoExecute"
    }
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not 0 < (tolerated_s.get(key) or 0) <= _MOST_TOLERATED_S:
            yield (
                f"tolerations: {key} must be tolerated for at most {_MOST_TOLERATED_S} s (Kubernetes' "
                f"default is 300), or the operator gives up a job whose node died, before the pod is evicted"
            )


def _pod_rules(where: str, pod: Manifest, tags: bool) -> Iterator[str]:
    security = pod.get("securityContext") or {}
    if security.get("runAsNonRoot") is not True:
        yield "runAsNonRoot must be true"
    if (security.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "seccompProfile must be RuntimeDefault"
    may_mount = where.endswith("/head (scales)")
    if pod.get("automountServiceAccountToken") is not False and not may_mount:
        yield "automountServiceAccountToken must be false: the pod needs no token of the API server"
    memory_volumes = {
        volume["name"]: volume["emptyDir"].get("sizeLimit")
        for volume in pod.get("volumes", ())
        if (volume.get("emptyDir") or {}).get("medium") == "Memory"
    }
    for container in pod["containers"]:
        for problem in _container_rules(container, memory_volumes, "/ray/" in where, tags):
            yield f"{container.get('name', '?')}: {problem}"


def _container_rules(
    container: Manifest, memory_volumes: Mapping[str, str | None], of_ray: bool, tags: bool
) -> Iterator[str]:
    security, resources = container.get("securityContext") or {}, container.get("resources") or {}
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation must be false"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem must be true"
    if (security.get("capabilities") or {}) != {"drop": ["ALL"]}:
        yield "capabilities must be drop [ALL] only"
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    if "cpu" not in requests:
        yield "resources.requests.cpu is missing"
    if not requests.get("memory") or requests["memory"] != limits.get("memory"):
        yield "memory: request and limit must be equal, or the node may be overcommitted"
    if not tags and "image" in container and "@sha256:" not in container["image"]:
        yield f"image {container['image']} must be named by digest"
    mounts = {m["mountPath"]: m["name"] for m in container.get("volumeMounts", ())}
    if "/tmp" not in mounts:
        yield "no volume is mounted at /tmp, the only writable folder"
    if of_ray:
        size = memory_volumes.get(mounts.get("/dev/shm", ""))
        if size is None:
            yield "/dev/shm must be an emptyDir in memory with a sizeLimit"
        elif amount(size) >= amount(limits.get("memory", "0")):
            yield f"/dev/shm: {size} is not less than the container's memory limit"


def _object_rules(manifest: Manifest) -> Iterator[str]:
    kind, spec = manifest["kind"], manifest.get("spec") or {}
    where = f"{kind}/{manifest['metadata']['name']}"
    if kind == "Service" and spec.get("type", "ClusterIP") != "ClusterIP":
        yield f"{where}: type {spec['type']} can be reached from outside the cluster"
    if kind == "Ingress":
        yield f"{where}: nothing may be reachable from outside the cluster"
    if kind == "ServiceAccount" and manifest.get("automountServiceAccountToken") is not False:
        yield f"{where}: automountServiceAccountToken must be false"
    if kind == "PodDisruptionBudget" and not isinstance(spec.get("minAvailable"), int):
        yield f"{where}: minAvailable must be a number, because the pods belong to a custom resource"

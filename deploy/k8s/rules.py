"""Checks rendered manifests against rules that no schema contains: KubeRay's, Kueue's and ours.

    kubectl kustomize OVERLAY | python deploy/k8s/rules.py [--tags]     # needs PyYAML

``operator_rules`` are the rules by which KubeRay 1.7 and Kueue reject a job that the API server has
accepted. Such a RayJob does not start; its status contains a message. ``house_rules`` keep a run
safe and able to resume. The exit status is 1 if a rule is broken. ``--tags`` allows images that are
named by tag, for use on one machine.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

Manifest = Mapping[str, Any]

# A RayCluster's name is the RayJob's name and five characters more. Names of pods need room as well.
_MAX_NAME = 47
_MAX_POD_SETS = 18
_TOKEN_SINCE = (2, 52)
_QUEUE = "kueue.x-k8s.io/queue-name"
_ELASTIC = "kueue.x-k8s.io/elastic-job"
_VOLCANO = "volcano.sh/queue-name"
_PART_OF = ("app.kubernetes.io/part-of", "gmp-atl")
_ALPHA = ("networkPolicy", "tlsOptions", "historyServerOptions")
_DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
_DRAIN_MARGIN_S = 10
_HIDES_GPUS = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
_SERVE_TOKEN = "GMP_ATL_SERVE_TOKEN"
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def operator_rules(job: Manifest) -> Iterator[str]:
    """The rules of KubeRay, Kueue and Volcano that a RayJob breaks."""
    spec, cluster = job["spec"], job["spec"].get("rayClusterSpec") or {}
    name = job["metadata"].get("name", "")
    if len(name) > _MAX_NAME or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield (
            f"name {name!r}: must be a DNS label of at most {_MAX_NAME} characters that starts with "
            f"a letter"
        )
    yield from _job_rules(spec, cluster)
    yield from _cluster_rules(cluster)
    yield from _queue_rules(job["metadata"], spec, cluster)


def _job_rules(spec: Manifest, cluster: Manifest) -> Iterator[str]:
    shuts_down = spec.get("shutdownAfterJobFinishes", False)
    mode = spec.get("submissionMode", "K8sJobMode")
    if not cluster and not spec.get("clusterSelector"):
        yield "rayClusterSpec and clusterSelector are both missing; set one of them"
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not shuts_down:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if (spec.get("deletionStrategy") or {}).get("deletionRules") and shuts_down:
        yield "deletionRules cannot be combined with shutdownAfterJobFinishes"
    if spec.get("backoffLimit", 0) > 0 and spec.get("clusterSelector"):
        yield "backoffLimit cannot be combined with clusterSelector"
    if spec.get("backoffLimit", 0) > 0 and mode == "InteractiveMode":
        yield "backoffLimit is not allowed in InteractiveMode"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if key in spec and spec[key] <= 0:
            yield f"{key} must be greater than 0"
    if mode == "SidecarMode":
        for key in ("submitterPodTemplate", "submitterConfig", "clusterSelector"):
            if spec.get(key):
                yield f"{key} is not allowed in SidecarMode"
        if cluster and _restart(cluster["headGroupSpec"]) not in (None, "Never"):
            yield "SidecarMode: restartPolicy of the head must be Never"


def _cluster_rules(cluster: Manifest) -> Iterator[str]:
    if not cluster:
        return
    scales, groups = cluster.get("enableInTreeAutoscaling", False), _groups(cluster)
    v2 = scales and (cluster.get("autoscalerOptions") or {}).get("version") == "v2"
    if (cluster.get("authOptions") or {}).get("mode") == "token":
        version = tuple(map(int, re.findall(r"\d+", str(cluster.get("rayVersion", "")))[:2]))
        if version < _TOKEN_SINCE:
            yield f"authOptions.mode token needs rayVersion 2.52 or later, not {version or 'none'}"
    for key in _ALPHA:
        if cluster.get(key):
            yield f"{key} needs an alpha feature gate of the operator"
    for name, group in groups.items():
        params, resources = group.get("rayStartParams") or {}, group.get("resources")
        if any(not isinstance(value, str) for value in params.values()):
            yield f"{name}: rayStartParams must be strings; quote the values of {params}"
        if resources and params.keys() & {"num-cpus", "num-gpus", "memory", "resources"}:
            yield f"{name}: resources are in rayStartParams and in the group; keep one of them"
        if "labels" in params:
            yield f"{name}: rayStartParams.labels is not allowed; use the group's labels"
        if v2 and _restart(group) not in (None, "Never"):
            yield f"{name}: restartPolicy must be Never with autoscaler v2"
    for group in cluster.get("workerGroupSpecs") or []:
        name, least, most = group["groupName"], group.get("minReplicas"), group.get("maxReplicas")
        if not scales and (least is None or most is None):
            yield f"{name}: minReplicas and maxReplicas are required without an autoscaler"
        if least is not None and most is not None and least > most:
            yield f"{name}: minReplicas {least} is greater than maxReplicas {most}"
        if "idleTimeoutSeconds" in group and not v2:
            yield f"{name}: idleTimeoutSeconds needs autoscaler v2"
    for name, times in Counter(g["groupName"] for g in _workers(cluster)).items():
        if times > 1:
            yield f"{name}: {times} groups have this name"


def _queue_rules(metadata: Manifest, spec: Manifest, cluster: Manifest) -> Iterator[str]:
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    workers, scales = _workers(cluster), cluster.get("enableInTreeAutoscaling", False)
    if _QUEUE in labels:
        if not spec.get("shutdownAfterJobFinishes", False):
            yield "Kueue: shutdownAfterJobFinishes must be true"
        if scales and annotations.get(_ELASTIC) != "true":
            yield f'Kueue: autoscaling needs the annotation {_ELASTIC}: "true"'
        # The head and the submitter count as pod sets too.
        if len(workers) + 2 > _MAX_POD_SETS:
            yield f"Kueue: {len(workers)} worker groups; at most {_MAX_POD_SETS - 2} are allowed"
        if any(group["groupName"] == "head" for group in workers):
            yield "Kueue: a worker group must not be named head"
    if _VOLCANO in labels:
        for group in workers:
            if group.get("minReplicas") != group.get("maxReplicas"):
                yield f"Volcano: {group['groupName']}: minReplicas must equal maxReplicas"


def service_rules(service: Manifest) -> Iterator[str]:
    """The rules of KubeRay, and ours, that a RayService breaks."""
    spec, cluster = service["spec"], service["spec"].get("rayClusterConfig") or {}
    name = service["metadata"].get("name", "")
    if len(name) > _MAX_NAME or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"name {name!r}: must be a DNS label of at most {_MAX_NAME} characters"
    yield from _cluster_rules(cluster)
    yield from _head_rules(cluster)
    yield from _drain_rules(cluster)
    config = yaml.safe_load(spec.get("serveConfigV2") or "{}")
    port = (config.get("http_options") or {}).get("port", 8000)
    if (config.get("http_options") or {}).get("host") != "0.0.0.0":
        yield "serveConfigV2: http_options.host must be 0.0.0.0, or no other pod reaches it"
    if not config.get("applications"):
        yield "serveConfigV2: no application"
    for group, holder in _groups(cluster).items():
        container = holder["template"]["spec"]["containers"][0]
        tokens = [e for e in container.get("env", ()) if e["name"] == _SERVE_TOKEN]
        if not tokens or "secretKeyRef" not in (tokens[0].get("valueFrom") or {}):
            yield f"{group}: {_SERVE_TOKEN} must come from a Secret"
        probe = (container.get("readinessProbe") or {}).get("httpGet") or {}
        named = {p.get("name"): p["containerPort"] for p in container.get("ports", ())}
        if group != "head" and named.get(probe.get("port"), probe.get("port")) != port:
            yield f"{group}: readinessProbe.httpGet must ask port {port}; KubeRay's own needs wget"


def house_rules(manifests: Sequence[Manifest], *, tags: bool = False) -> Iterator[str]:
    """The rules that keep a run safe and able to resume, as far as they are broken."""
    for job in ray_jobs(manifests):
        yield from _run_rules(job["spec"])
    for manifest in manifests:
        for where, labels, pod in _pods(manifest):
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
    yield from _head_rules(cluster)
    if re.search(r"[&|;<>$`'\"\n]", spec.get("entrypoint", "")):
        yield "entrypoint: must be one plain command, because KubeRay inserts it into a shell"
    if spec.get("backoffLimit", 0) < 1:
        yield "backoffLimit: must be at least 1, so that a run that lost its head is resumed"
    yield from _drain_rules(cluster)


def _head_rules(cluster: Manifest) -> Iterator[str]:
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        yield "authOptions.mode must be token: the job API executes any job that it receives"
    head = cluster["headGroupSpec"]
    if (head.get("rayStartParams") or {}).get("num-cpus") != "0":
        yield 'head: num-cpus must be "0", so that no task runs beside the driver'
    if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
        yield "head: the dashboard can be reached from outside the cluster"


def _drain_rules(cluster: Manifest) -> Iterator[str]:
    for name, group in _groups(cluster).items():
        pod = group["template"]["spec"]
        env = {e["name"]: e.get("value") for e in pod["containers"][0].get("env", ())}
        grace_s = pod.get("terminationGracePeriodSeconds", 30)
        if grace_s < float(env.get(_DRAIN) or 30) + _DRAIN_MARGIN_S:
            yield f"{name}: terminationGracePeriodSeconds {grace_s} is too short for Ray's drain ({_DRAIN})"
        if env.get(_HIDES_GPUS) != "1":
            yield f'{name}: {_HIDES_GPUS} must be "1", or processes without a GPU see those of the pod'


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
        elif _bytes(size) >= _bytes(limits.get("memory", "0")):
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


def ray_jobs(manifests: Sequence[Manifest]) -> list[Manifest]:
    """The RayJobs, and those that a RayCronJob would create."""
    made = [
        {
            "apiVersion": cron["apiVersion"],
            "kind": "RayJob",
            "metadata": cron["metadata"],
            "spec": cron["spec"]["jobTemplate"],
        }
        for cron in manifests
        if cron["kind"] == "RayCronJob"
    ]
    return [m for m in manifests if m["kind"] == "RayJob"] + made


def _pods(manifest: Manifest) -> Iterator[tuple[str, Mapping[str, str], Manifest]]:
    """(location, labels, spec) of every pod. The autoscaler's container counts as a pod of its own."""
    if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
        yield _pod(f"{manifest['kind']}/{manifest['metadata']['name']}", manifest["spec"])
    if manifest["kind"] == "RayService":
        for name, group in _groups(manifest["spec"].get("rayClusterConfig") or {}).items():
            yield _pod(f"RayService/ray/{name}", group)
    for job in ray_jobs([manifest]):
        spec, cluster = job["spec"], job["spec"].get("rayClusterSpec") or {}
        if spec.get("submitterPodTemplate"):
            yield _pod("RayJob/submitter", {"template": spec["submitterPodTemplate"]})
        elif spec.get("submissionMode", "K8sJobMode") == "K8sJobMode":
            yield "RayJob/submitter", {}, {"containers": [{}]}
        for name, group in _groups(cluster).items():
            scales = name == "head" and cluster.get("enableInTreeAutoscaling", False)
            where, labels, pod = _pod(f"RayJob/ray/{name}", group)
            if scales:
                # KubeRay adds this container with the head's image and the autoscaler options only.
                options = {"resources": {}, **(cluster.get("autoscalerOptions") or {})}
                sidecar = {**options, "name": "autoscaler"}
                alone = {**pod, "automountServiceAccountToken": False, "containers": [sidecar]}
                yield "RayJob/autoscaler", labels, alone
                where += " (scales)"
            yield where, labels, pod


def _pod(where: str, holder: Manifest) -> tuple[str, Mapping[str, str], Manifest]:
    template = holder["template"]
    return where, (template.get("metadata") or {}).get("labels") or {}, template["spec"]


def _workers(cluster: Manifest) -> Sequence[Manifest]:
    return cluster.get("workerGroupSpecs") or []


def _groups(cluster: Manifest) -> dict[str, Manifest]:
    if not cluster:
        return {}
    workers = {group["groupName"]: group for group in _workers(cluster)}
    return {"head": cluster["headGroupSpec"], **workers}


def _restart(group: Manifest) -> str | None:
    return group["template"]["spec"].get("restartPolicy")


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMGT]i)?", quantity).groups("")  # pyright: ignore
    return int(number) * _UNITS[unit]


def broken_rules(manifests: Sequence[Manifest], *, tags: bool = False) -> list[str]:
    """A message for every broken rule."""
    refused = [problem for job in ray_jobs(manifests) for problem in operator_rules(job)]
    for service in manifests:
        if service["kind"] == "RayService":
            refused += service_rules(service)
    return refused + list(house_rules(manifests, tags=tags))


if __name__ == "__main__":
    problems = broken_rules(
        [m for m in yaml.safe_load_all(sys.stdin) if m], tags="--tags" in sys.argv
    )
    print("\n".join(problems) or "no rule is broken")
    sys.exit(1 if problems else 0)

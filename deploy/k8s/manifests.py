"""Parts of rendered manifests: jobs, groups, pods, quantities."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Manifest = Mapping[str, Any]

_UNITS = {"": 1.0, "m": 1e-3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_UNITS |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


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


def pods_of(manifest: Manifest) -> Iterator[tuple[str, Mapping[str, str], Manifest]]:
    """(location, labels, spec) of every pod. The autoscaler's container counts as a pod of its own."""
    if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
        yield _pod_of(f"{manifest['kind']}/{manifest['metadata']['name']}", manifest["spec"])
    if manifest["kind"] == "RayService":
        for name, group in groups_of(manifest["spec"].get("rayClusterConfig") or {}).items():
            yield _pod_of(f"RayService/ray/{name}", group)
    for job in ray_jobs([manifest]):
        spec, cluster = job["spec"], job["spec"].get("rayClusterSpec") or {}
        if spec.get("submitterPodTemplate"):
            yield _pod_of("RayJob/submitter", {"template": spec["submitterPodTemplate"]})
        elif spec.get("submissionMode", "K8sJobMode") == "K8sJobMode":
            yield "RayJob/submitter", {}, {"containers": [{}]}
        for name, group in groups_of(cluster).items():
            scales = name == "head" and cluster.get("enableInTreeAutoscaling", False)
            where, labels, pod = _pod_of(f"RayJob/ray/{name}", group)
            if scales:
                # KubeRay adds this container with the head's image and the autoscaler options only.
                options = {"resources": {}, **(cluster.get("autoscalerOptions") or {})}
                sidecar = {**options, "name": "autoscaler"}
                alone = {**pod, "automountServiceAccountToken": False, "containers": [sidecar]}
                yield "RayJob/autoscaler", labels, alone
                where += " (scales)"
            yield where, labels, pod


def _pod_of(where: str, holder: Manifest) -> tuple[str, Mapping[str, str], Manifest]:
    template = holder["template"]
    return where, (template.get("metadata") or {}).get("labels") or {}, template["spec"]


def workers_of(cluster: Manifest) -> Sequence[Manifest]:
    """The groups of workers of a RayCluster."""
    return cluster.get("workerGroupSpecs") or []


def groups_of(cluster: Manifest) -> dict[str, Manifest]:
    """The head and the groups of workers, by name. None of no cluster."""
    if not cluster:
        return {}
    workers = {group["groupName"]: group for group in workers_of(cluster)}
    return {"head": cluster["headGroupSpec"], **workers}


def restart_policy(group: Manifest) -> str | None:
    """Of the pods of a group."""
    return group["template"]["spec"].get("restartPolicy")


def amount(quantity: str) -> float:
    """The number that a Kubernetes quantity is: bytes of ``12Gi``, cores of ``500m``, pieces of ``4``.

    Raises:
        ValueError: it has another form.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|[KMGT]i?)?", str(quantity))
    if found is None:
        raise ValueError(f"{quantity!r} is no quantity such as 4, 500m or 12Gi")
    return float(found[1]) * _UNITS[found[2] or ""]

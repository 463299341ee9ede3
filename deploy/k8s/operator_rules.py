"""The rules by which KubeRay 1.7, Kueue and Volcano reject a job that the API server has accepted.

Such a RayJob does not start; its status contains a message.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from deploy.k8s.manifests import Manifest, groups_of, restart_policy, workers_of

# A RayCluster's name is the RayJob's name and five characters more. Names of pods need room as well.
MAX_NAME = 47
_MAX_POD_SETS = 18
_TOKEN_SINCE = (2, 52)
_QUEUE = "kueue.x-k8s.io/queue-name"
_ELASTIC = "kueue.x-k8s.io/elastic-job"
_VOLCANO = "volcano.sh/queue-name"
_ALPHA = ("networkPolicy", "tlsOptions", "historyServerOptions")


def operator_rules(job: Manifest) -> Iterator[str]:
    """The rules of KubeRay, Kueue and Volcano that a RayJob breaks."""
    spec, cluster = job["spec"], job["spec"].get("rayClusterSpec") or {}
    name = job["metadata"].get("name", "")
    if len(name) > MAX_NAME or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield (
            f"name {name!r}: must be a DNS label of at most {MAX_NAME} characters that starts with "
            f"a letter"
        )
    yield from _job_rules(spec, cluster)
    yield from cluster_rules(cluster)
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
        if cluster and restart_policy(cluster["headGroupSpec"]) not in (None, "Never"):
            yield "SidecarMode: restartPolicy of the head must be Never"


def cluster_rules(cluster: Manifest) -> Iterator[str]:
    """The rules of KubeRay that a RayCluster breaks."""
    if not cluster:
        return
    scales, groups = cluster.get("enableInTreeAutoscaling", False), groups_of(cluster)
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
        if v2 and restart_policy(group) not in (None, "Never"):
            yield f"{name}: restartPolicy must be Never with autoscaler v2"
    for group in cluster.get("workerGroupSpecs") or []:
        name, least, most = group["groupName"], group.get("minReplicas"), group.get("maxReplicas")
        if not scales and (least is None or most is None):
            yield f"{name}: minReplicas and maxReplicas are required without an autoscaler"
        if least is not None and most is not None and least > most:
            yield f"{name}: minReplicas {least} is greater than maxReplicas {most}"
        if "idleTimeoutSeconds" in group and not v2:
            yield f"{name}: idleTimeoutSeconds needs autoscaler v2"
    for name, times in Counter(g["groupName"] for g in workers_of(cluster)).items():
        if times > 1:
            yield f"{name}: {times} groups have this name"


def _queue_rules(metadata: Manifest, spec: Manifest, cluster: Manifest) -> Iterator[str]:
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    workers, scales = workers_of(cluster), cluster.get("enableInTreeAutoscaling", False)
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

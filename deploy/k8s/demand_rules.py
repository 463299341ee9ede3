"""Whether the worker groups and the quota have what the settings of a run ask for.

The settings are those that ``base/run.sh`` gives to the run: the configuration, and the lines of the ``.set``
files. A process whose demand no group can meet would wait for ever. An autoscaler's limits are seen here
only: Ray does not tell them to the run.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.k8s.manifests import Manifest, amount, ray_jobs, workers_of
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.config.runtime import RuntimeConfig
from gmp_atl_dist.config.sweep import load_sweep
from gmp_atl_dist.errors import ConfigError

_GPU = "nvidia.com/gpu"
_ENTRYPOINT = "/etc/gmp-atl/run/run.sh"
_STAGES = ("ingest", "extract", "cluster", "label", "train")


@dataclass(frozen=True)
class _Demand:
    """Processes of one kind."""

    key: str
    resources: Mapping[str, float]
    cpus: float
    gpus: float
    processes: int


@dataclass(frozen=True)
class _Group:
    """What one pod of a worker group offers, and how many pods there can be."""

    name: str
    resources: Mapping[str, float]
    cpus: float
    gpus: float
    pods: int

    def holds(self, demand: _Demand) -> int:
        """Processes that fit into the whole group."""
        asked = [(demand.cpus, self.cpus), (demand.gpus, self.gpus)]
        asked += [(n, self.resources.get(name, 0.0)) for name, n in demand.resources.items()]
        return self.pods * min((int(has / wants) for wants, has in asked if wants), default=9999)


def demand_rules(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Demands of runs that no group can meet, and groups that the quota cannot hold."""
    for job in ray_jobs(manifests):
        cluster = job["spec"].get("rayClusterSpec") or {}
        if cluster and _ENTRYPOINT in job["spec"].get("entrypoint", ""):
            yield from _settings_rules(manifests, cluster)
            yield from _quota_rules(manifests, job["spec"], cluster)


def _settings_rules(manifests: Sequence[Manifest], cluster: Manifest) -> Iterator[str]:
    try:
        runtime = _runtime(manifests, cluster)
    except LookupError as e:
        yield str(e)
        return
    except ConfigError as e:
        yield f"the settings of the run: {e}"
        return
    groups = [_group(spec, cluster) for spec in workers_of(cluster)]
    offered = sorted({name for group in groups for name in group.resources})
    for demand in _demands(runtime):
        missing = [name for name in demand.resources if name not in offered]
        if missing:
            yield (
                f"{demand.key}: asks for the resource {missing[0]!r}, which no worker group advertises; "
                f"the groups advertise {', '.join(offered) or 'none'}"
            )
            continue
        room = sum(group.holds(demand) for group in groups)
        if room < demand.processes:
            yield (
                f"{demand.key}: {demand.processes} processes of {demand.cpus:g} cores, {demand.gpus:g} "
                f"GPUs and {dict(demand.resources)} are asked for, and the worker groups have room for "
                f"{room}; raise maxReplicas or the resources of a pod, or ask for less"
            )


def _demands(runtime: RuntimeConfig) -> Iterator[_Demand]:
    for name in _STAGES:
        workers = getattr(runtime, name)
        yield _Demand(
            f"runtime.{name}", workers.resources, workers.cpus, workers.gpus, workers.max_workers
        )
    for name in ("extract", "label"):
        stage = getattr(runtime, name)
        readers = getattr(stage, "readers", None) or 1
        if getattr(stage, "reader_resources", None):
            key = f"runtime.{name}.reader_resources"
            yield _Demand(key, stage.reader_resources, stage.reader_cpus, 0.0, readers)


def _runtime(manifests: Sequence[Manifest], cluster: Manifest) -> RuntimeConfig:
    """[runtime] as run.sh gives it to the run.

    Raises:
        LookupError: a ConfigMap, or the configuration in it, is not among the manifests.
        ConfigError: the settings are not usable.
    """
    maps = {
        m["metadata"]["name"]: m.get("data") or {} for m in manifests if m["kind"] == "ConfigMap"
    }
    pod = cluster["headGroupSpec"]["template"]["spec"]
    mounted = {v["name"]: v.get("configMap", {}).get("name", "") for v in pod.get("volumes", ())}
    sources = [s["configMapRef"]["name"] for s in _env_from(pod) if "configMapRef" in s]

    def data(name: str, what: str) -> Mapping[str, str]:
        if name not in maps:
            raise LookupError(
                f"head: the ConfigMap {name!r} with {what} is not among the manifests"
            )
        return maps[name]

    env = {key: value for name in sources for key, value in data(name, "the environment").items()}
    run = data(mounted.get("run", ""), "run.sh and the .set files")
    configs = data(mounted.get("configs", ""), "the configurations")
    file = env.get("GMP_ATL_CONFIG", "")
    if file not in configs:
        raise LookupError(
            f"GMP_ATL_CONFIG: {file!r} is no file of the ConfigMap {mounted.get('configs')!r}; it has "
            f"{', '.join(sorted(configs))}"
        )
    lines = [
        line
        for name, text in sorted(run.items())
        if name.endswith(".set")
        for line in text.splitlines()
        if line and not line.startswith("#")
    ]
    lines.append(f"runtime.corpus={env.get('GMP_ATL_CORPUS', '')}")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in configs.items():
            (Path(folder) / name).write_text(text)
        path = Path(folder) / file
        try:
            if "\n[[arms]]" in f"\n{configs[file]}":
                return load_sweep(path, lines).runs[0].config.runtime
            return load_config(path, lines).runtime
        except ConfigError as e:
            raise ConfigError(e.message.replace(f"{folder}/", "")) from e


def _env_from(pod: Manifest) -> Sequence[Manifest]:
    return pod["containers"][0].get("envFrom") or []


def _group(spec: Manifest, cluster: Manifest) -> _Group:
    own = {name: amount(number) for name, number in (spec.get("resources") or {}).items()}
    started = (spec.get("rayStartParams") or {}).get("resources")
    if started:
        # A JSON object, which users quote for a shell.
        own |= json.loads(str(started).strip("'\"").replace('\\"', '"'))
    resources = spec["template"]["spec"]["containers"][0].get("resources") or {}
    has = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    return _Group(
        spec["groupName"],
        {name: n for name, n in own.items() if name not in ("CPU", "GPU", "memory")},
        own.get("CPU", amount(has.get("cpu", "0"))),
        own.get("GPU", amount(has.get(_GPU, "0"))),
        _most_pods(spec, cluster),
    )


def _most_pods(spec: Manifest, cluster: Manifest) -> int:
    scales = cluster.get("enableInTreeAutoscaling", False)
    return spec.get("maxReplicas" if scales else "replicas") or 0


def _quota_rules(manifests: Sequence[Manifest], spec: Manifest, cluster: Manifest) -> Iterator[str]:
    """Against each quota of the manifests: head, submitter, and every group with all of its pods."""
    pods: list[tuple[Manifest, int]] = [(cluster["headGroupSpec"]["template"]["spec"], 1)]
    if spec.get("submitterPodTemplate"):
        pods.append((spec["submitterPodTemplate"]["spec"], 1))
    pods += [(g["template"]["spec"], _most_pods(g, cluster)) for g in workers_of(cluster)]
    needed: defaultdict[str, float] = defaultdict(float)
    for pod, count in pods:
        for name, number in _asked(pod).items():
            needed[name] += count * number
    if cluster.get("enableInTreeAutoscaling", False):
        options = {"containers": [cluster.get("autoscalerOptions") or {}]}
        for name, number in _asked(options).items():
            needed[name] += number if name != "pods" else 0
    for quota in (m for m in manifests if m["kind"] == "ResourceQuota"):
        for name, limit in (quota["spec"].get("hard") or {}).items():
            most = amount(limit)
            if needed.get(name, 0) > most:
                yield (
                    f"ResourceQuota/{quota['metadata']['name']}: {name} is {limit}, and the run asks for "
                    f"up to {_text(name, needed[name])}; raise the quota or lower maxReplicas"
                )


def _asked(pod: Manifest) -> dict[str, float]:
    """By the names of a ResourceQuota."""
    asked: defaultdict[str, float] = defaultdict(float, pods=1)
    for container in pod["containers"]:
        resources: Mapping[str, Any] = container.get("resources") or {}
        for kind in ("requests", "limits"):
            for name, quantity in (resources.get(kind) or {}).items():
                asked[f"{kind}.{name}"] += amount(quantity)
    for volume in pod.get("volumes", ()):
        claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if claim:
            asked["persistentvolumeclaims"] += 1
            asked["requests.storage"] += amount(claim["spec"]["resources"]["requests"]["storage"])
    return asked


def _text(name: str, number: float) -> str:
    in_bytes = name.endswith(("memory", "storage"))
    return f"{number / 2**30:g}Gi" if in_bytes else f"{number:g}"

"""What manifests say is what runs: a rendered RayJob on a local Ray, with a real S3 server and a token."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from support.manifests import Manifests, by_kind, rendered, site, the_job
from support.s3_server import S3Server, free_ports

from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.store.artifact import find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from ray_jobs.local import Head, private_head

pytest_plugins = ["support.manifests"]
pytestmark = [pytest.mark.timeout(5400), pytest.mark.nightly]

# These only catch a hang.
RUN_S = 1800
NODE_S = 1800
# A site's own --set lines, over those of the overlay: a run of a minute or two.
SITE = """
corpus.part_audio_s=7
warmup.epochs=1
extract.layers=[1]
cluster.scales=[{ layer = 1, k = 8 }]
cluster.sample_frames=2000
retrain.steps=3
finetune.epochs=1
finetune.embedding_dim=16
evaluate.bootstrap_samples=200
"""


@dataclass(frozen=True)
class Pods:
    """What the pods of a rendered RayJob are given, with their mounts in folders of this machine."""

    job: dict[str, Any]
    manifests: Manifests
    folder: Path

    @property
    def head_group(self) -> dict[str, Any]:
        return self.job["spec"]["rayClusterSpec"]["headGroupSpec"]

    def entrypoint(self) -> str:
        return self._here(self.job["spec"]["entrypoint"])

    def env(self, group: Mapping[str, Any]) -> dict[str, str]:
        (container,) = group["template"]["spec"]["containers"]
        found: dict[str, str] = {}
        for source in container["envFrom"]:
            ((kind, of),) = source.items()
            found |= self._data("ConfigMap" if kind == "configMapRef" else "Secret", of["name"])
        found |= {e["name"]: e["value"] for e in container["env"]}
        return {name: self._here(value) for name, value in found.items()}

    def mount(self) -> None:
        """ConfigMaps and empty folders as the head sees them."""
        pod = self.head_group["template"]["spec"]
        volumes = {v["name"]: v for v in pod["volumes"]}
        for mount in pod["containers"][0]["volumeMounts"]:
            place = Path(self._here(mount["mountPath"]))
            place.mkdir(parents=True)
            of = volumes[mount["name"]].get("configMap", {"name": None})["name"]
            for name, text in self._data("ConfigMap", of).items() if of else ():
                (place / name).write_text(text)

    def _here(self, text: str) -> str:
        for mount in self.head_group["template"]["spec"]["containers"][0]["volumeMounts"]:
            at = mount["mountPath"]
            text = " ".join(
                f"{self.folder}{word}" if f"{word}/".startswith(f"{at}/") else word
                for word in text.split(" ")
            )
        return text

    def _data(self, kind: str, name: str) -> dict[str, str]:
        (found,) = [m for m in by_kind(self.manifests, kind) if m["metadata"]["name"] == name]
        if kind == "ConfigMap":
            return found["data"]
        return {k: base64.b64decode(v).decode() for k, v in found["data"].items()}


@pytest.fixture(scope="module")
def pods(checkout: Path, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Pods:
    """The local overlay with the S3 server of the tests, and a corpus in its bucket."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    keys = "".join(f"{name}={os.environ[name]}\n" for name in names)
    env_file = checkout / "deploy/k8s/overlays/local/s3.env"
    before = env_file.read_text()
    env_file.write_text(keys)
    folder = site(
        checkout,
        "runs",
        "resources: [../../deploy/k8s/overlays/local]\nconfigMapGenerator:\n"
        "  - { name: gmp-atl-env, namespace: gmp-atl, behavior: merge, "
        f"literals: ['AWS_ENDPOINT_URL={s3_server.endpoint}'] }}\n"
        "  - { name: gmp-atl-run, namespace: gmp-atl, behavior: merge, files: [90-site.set] }\n",
    )
    (folder / "90-site.set").write_text(SITE)
    manifests = rendered(folder)
    env_file.write_text(before)
    made = Pods(the_job(manifests), manifests, tmp_path_factory.mktemp("pods"))
    made.mount()
    corpus = tmp_path_factory.mktemp("corpus")
    write_synthetic_corpus(corpus, utterances_per_speaker_and_emotion=2, seconds=(0.4, 0.8))
    client = boto3.client("s3", endpoint_url=s3_server.endpoint)
    for path in sorted(p for p in corpus.rglob("*") if p.is_file()):
        client.upload_file(str(path), s3_server.bucket, f"corpus/{path.relative_to(corpus)}")
    return made


@pytest.fixture(scope="module")
def head(pods: Pods) -> Iterator[Head]:
    """A Ray cluster with a node for every pod, which has the environment and the resources of its group."""
    cluster = pods.job["spec"]["rayClusterSpec"]
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in pods.env(pods.head_group).items():
            patch.setenv(name, value)
        beside = str(Path(sys.executable).parent)
        patch.setenv("PATH", os.pathsep.join([beside, os.environ["PATH"]]))
        cpus = pods.head_group["rayStartParams"]["num-cpus"]
        with private_head(num_cpus=int(cpus)) as started:
            for group in cluster["workerGroupSpecs"]:
                for _ in range(group["replicas"]):
                    add_node(started, pods, group)
            yield started


def add_node(head: Head, pods: Pods, group: Mapping[str, Any]) -> None:
    """It ends with the head, whose mark is in its environment."""
    (container,) = group["template"]["spec"]["containers"]
    agent, agent_grpc, runtime_env, metrics = free_ports(4)
    command = [
        *(head.python, "-m", "ray.scripts.scripts", "start", "--block"),
        f"--address=127.0.0.1:{head.gcs_port}",
        f"--num-cpus={container['resources']['requests']['cpu']}",
        f"--resources={json.dumps({k: float(v) for k, v in group['resources'].items()})}",
        f"--object-store-memory={200 << 20}",
        *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}"),
        *(f"--runtime-env-agent-port={runtime_env}", f"--metrics-export-port={metrics}"),
        *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
    ]
    log = pods.folder / f"{group['groupName']}.log"
    with log.open("ab") as out:
        node = subprocess.Popen(
            command,
            env=head.env | pods.env(group),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # One after another: on one machine two that begin at once take each other for themselves.
    deadline_s = time.monotonic() + NODE_S
    while "block forever" not in log.read_text():
        if node.poll() is not None or time.monotonic() > deadline_s:
            pytest.fail(f"no node for {group['groupName']}; its output:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


def submitted(head: Head, pods: Pods, job: str, **env: str) -> tuple[int, str]:
    """As the operator's submitter does, which pastes the entrypoint unquoted into a shell."""
    ray = f"{head.python} -m ray.scripts.scripts job submit --address {head.url}"
    command = f"exec {ray} --submission-id {job} -- {pods.entrypoint()}"
    log = pods.folder / f"{job}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", command],
            env=head.env | env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(RUN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"not done after {RUN_S} s; its output:\n{log.read_text()[-6000:]}")
    return code, log.read_text()


def test_without_the_token_nothing_is_taken(head: Head, pods: Pods) -> None:
    code, said = submitted(head, pods, "unarmed", RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN="")

    assert code != 0, said
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"{head.url}/api/jobs/", timeout=10
        )
    with pytest.raises(urllib.error.HTTPError, match="404"):
        head.get("/api/jobs/unarmed")


def test_the_entrypoint_runs_the_configuration_to_its_end(
    head: Head, pods: Pods, s3_server: S3Server
) -> None:
    code, said = submitted(head, pods, "whole")

    assert code == 0, said[-6000:]
    assert "ok      store" in said, "doctor was first"
    root = pods.env(pods.head_group)["GMP_ATL_ROOT"]
    store = Store.open(root)
    sealed = {key.kind for key in list_artifacts(store) if find_artifact(store, key)}
    assert {"ingest", "warmup", "extract", "cluster", "label", "retrain", "finetune"} <= sealed
    assert {"evaluate", "report"} <= sealed
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret not in said
    assert secret not in json.dumps(head.get("/api/jobs/whole"))

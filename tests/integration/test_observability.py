"""What Ray exports while real stages run is what the dashboard and the alert rules ask for."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import ray
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.one_process import FOLD, Tiny, context_of, finish

from gmp_atl_dist.config import RuntimeConfig, WarmupConfig
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.corpora.reading import read_corpus
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.stages.warmup import Warmup

pytest_plugins = ["support.one_process"]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900), pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
OBSERVABILITY = REPOSITORY / "deploy" / "observability"
ONLY_WITH_GPUS = {"ray_node_gpus_utilization", "ray_node_gram_used"}
SERIES = re.compile(r"\bray_[a-z0-9_]*[a-z0-9]\b")
RUN = {"run": "watched"}
UPDATES = 120
"""Some seconds of training: what lives shorter than an export is never seen."""


@dataclass
class Seen:
    """The last value of each series that was ever exported, by name and tags."""

    port: int
    values: dict[tuple[str, str, str], float] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)

    def look(self) -> None:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = f"http://127.0.0.1:{self.port}/metrics"
        text = direct.open(url, timeout=10).read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.names.add(sample.name)
                tags = sample.labels
                if tags.get("run") == RUN["run"]:
                    self.values[sample.name, tags["stage"], tags["fold"]] = sample.value
                    self.others |= {tags["metric"]} if "metric" in tags else set()


@pytest.fixture(scope="module")
def seen(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A mapped stage with a broken recording and a short training on a Ray, watched as Prometheus would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = Seen(probe.getsockname()[1])
    folder = tmp_path_factory.mktemp("observed")
    here = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": here}},
        _metrics_export_port=made.port,
        # As often as Ray can; ten times that is what it does unless told.
        _system_config={"metrics_report_interval_ms": 1000},
    )
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            with suppress(OSError):  # late on a busy machine; the next look sees it
                made.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        ingest_with_a_broken_recording(folder)
        train(tiny, folder)
        over.wait(2.5)  # the driver's last values
    finally:
        over.set()
        watcher.join()
        ray.shutdown()
    return made


def ingest_with_a_broken_recording(folder: Path) -> None:
    corpus = folder / "corpus"
    write_synthetic_corpus(corpus, utterances_per_speaker_and_emotion=1, seconds=(0.3, 0.6))
    raw = {
        "corpus": {"part_audio_s": 5, "max_bad_fraction": 0.5},
        "runtime": {"run_name": "watched"},
    }
    config = parse_config(raw, "the test's configuration")
    context = context_of(folder / "root", corpus, config)
    first = read_corpus(config.corpus, context.source).utterances[0]
    (corpus / first.path).write_bytes(b"no recording")
    artifact = finish(Ingest(config.corpus, context.source), context)
    assert len(artifact.manifest.problems) == 1


def train(tiny: Tiny, folder: Path) -> None:
    short = {"batch_s": 3.0, "lr": 1e-3, "dropout": 0.0, "freeze_conv": True}
    config = WarmupConfig.model_validate({**short, "epochs": None, "steps": UPDATES})
    workers = {"checkpoint_every_steps": 50}
    settings = RuntimeConfig.model_validate({"run_name": "watched", "train": workers})
    context = replace(tiny.with_root(folder / "root"), settings=settings)
    finish(Warmup(config, tiny.corpus, tiny.backbone, FOLD), context)


def test_each_series_of_the_dashboard_and_the_alerts_is_exported(seen: Seen) -> None:
    used = {name for text in expressions() for name in SERIES.findall(text)}
    assert used - ONLY_WITH_GPUS <= seen.names
    ours = {name for name in seen.names if name.startswith("ray_gmp_atl_")}
    assert ours <= used | {"ray_gmp_atl_updates_planned"}, "exported, and shown nowhere"


def test_what_ray_says_of_gpus_has_the_names_that_are_asked_for() -> None:
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    assert {name.removeprefix("ray_") for name in ONLY_WITH_GPUS} <= METRICS_GAUGES.keys()


def test_the_values_are_those_of_the_work(seen: Seen) -> None:
    ingest = {
        name: value for (name, *tags), value in seen.values.items() if tags == ["ingest", "none"]
    }
    assert ingest["ray_gmp_atl_parts_done"] == ingest["ray_gmp_atl_parts_planned"]
    assert ingest["ray_gmp_atl_parts_total"] == ingest["ray_gmp_atl_parts_done"] > 1
    assert ingest["ray_gmp_atl_bad_recordings_total"] == 1
    assert ingest["ray_gmp_atl_utterances_total"] == 39

    warmup = {
        name.removeprefix("ray_gmp_atl_"): value
        for (name, *tags), value in seen.values.items()
        if tags == ["warmup", "fold1"]
    }
    assert 0 < warmup["updates_done"] <= warmup["updates_planned"] == UPDATES
    assert warmup["updates_skipped"] == 0
    assert warmup["loss"] > 0
    assert warmup["gradient_norm"] > 0
    assert 0 < warmup["learning_rate"] <= 1e-3
    assert warmup["audio_hours_per_hour"] > 0
    assert 0 <= warmup["data_wait_share"] < 1
    assert 0 <= warmup["checkpoint_stall_share"] < 1
    assert warmup["checkpoint_timestamp_seconds"] > 1.7e9
    assert seen.others, "what else a stage measures"


def expressions() -> list[str]:
    """All PromQL of both files."""
    dashboard = json.loads((OBSERVABILITY / "grafana-dashboard.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked = [variable["query"]["query"] for variable in dashboard["templating"]["list"][1:]]
    return shown + asked + [rule["expr"] for rule in rules()]


def rules() -> list[dict[str, str]]:
    spec = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())["spec"]
    return [rule for group in spec["groups"] for rule in group["rules"]]

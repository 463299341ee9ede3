"""What ``gmp-atl run`` says at its end: scores, verdict, where everything is, and what to type next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from gmp_atl_dist.scheduling.demands import Held
from gmp_atl_dist.stages.base import Stage
from gmp_atl_dist.stages.report import HTML_NAME, JSON_NAME
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.runs import PAGE_NAME, RUNS

_A_RECORDING = "YOUR.wav"


class Models:
    """Observes a run (``scheduling.walks.RunObserver``) and keeps its classifiers, one per fold."""

    def __init__(self) -> None:
        self.by_fold: dict[str, Artifact] = {}

    def stage_found(self, stage: Stage, artifact: Artifact) -> None:
        self.stage_done(stage, artifact)

    def stage_started(self, stage: Stage, held: Held) -> None:
        pass

    def stage_done(self, stage: Stage, artifact: Artifact) -> None:
        if stage.name == "finetune":
            self.by_fold[stage.fold_name] = artifact


def say_the_end(report: Artifact, models: Models, name: str, say: Callable[[str], object]) -> None:
    """Say the end of the run ``name``."""
    for line in _scores(json.loads(report.read_file(JSON_NAME))):
        say(line)
    say(f"report: {_page(report, name)}")
    for fold, model in models.by_fold.items():
        say(f"model of {fold}: {_files(model)}")
    if not models.by_fold:
        return
    fold = "" if len(models.by_fold) == 1 else " --fold 1"
    run = f"{name} --root {shlex.quote(_shown(report.store))}"
    say("next:")
    say(f"  gmp-atl predict {run}{fold} {_A_RECORDING}")
    say(f"  gmp-atl model export {run}{fold} --to model")
    say(f"  gmp-atl runs show {run}")


def _page(report: Artifact, name: str) -> str:
    """The page of the run, or the sealed one where that could not be written."""
    page = f"{RUNS}/{name}/{PAGE_NAME}"
    if report.store.exists(page):
        return f"{report.store.uri}/{page}"
    return f"{_files(report)}/{HTML_NAME}"


def _scores(content: Mapping[str, Any]) -> list[str]:
    """WAR and UAR with interval and chance, and the verdict if the report has one."""
    pooled = content["pooled"]
    outcome = pooled["outcome"]
    scores, intervals = outcome["scores"], outcome["intervals"]
    support = [sum(row) for row in outcome["confusion"]]
    chance = {
        "uar": f"chance {100 / len(content['classes']):.1f} %",
        "war": f"always the most frequent class {100 * max(support) / max(1, sum(support)):.1f} %",
    }
    lines: list[str] = []
    for name in ("war", "uar"):
        low, high = intervals[name]
        lines.append(
            f"{name.upper()} {100 * scores[name]:.1f} % "
            f"({100 * intervals['confidence']:g} % interval {100 * low:.1f} to {100 * high:.1f}; "
            f"{chance[name]})"
        )
    return lines + [f"verdict: {text}" for text in pooled.get("verdict", {}).get("sentences", ())]


def _files(artifact: Artifact) -> str:
    return f"{artifact.store.uri}/{artifact.key.prefix}/files"


def _shown(store: Store) -> str:
    """A folder as people type it, or a URI."""
    return store.uri.removeprefix("file://")

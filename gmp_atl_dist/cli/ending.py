"""What ``gmp-atl run`` says at its end: scores, verdict, where everything is, and what to type next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gmp_atl_dist.errors import GmpAtlError
from gmp_atl_dist.stages.base import Stage
from gmp_atl_dist.stages.report import HTML_NAME, JSON_NAME
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.runs import read_run, run_names

_A_RECORDING = "recording.wav"


class Models:
    """Observes a run (``execution.RunObserver``) and keeps its classifiers, one per fold."""

    def __init__(self) -> None:
        self.by_fold: dict[str, Artifact] = {}

    def stage_found(self, stage: Stage, artifact: Artifact) -> None:
        self.stage_done(stage, artifact)

    def stage_started(self, stage: Stage) -> None:
        pass

    def stage_done(self, stage: Stage, artifact: Artifact) -> None:
        if stage.name == "finetune":
            self.by_fold[stage.fold_name] = artifact


def say_the_end(
    report: Artifact, models: Models, options: Sequence[str], say: Callable[[str], object]
) -> None:
    """Say the end of a run. ``options`` are those that named its configuration."""
    for line in _scores(json.loads(report.read_file(JSON_NAME))):
        say(line)
    say(f"report: {_files(report)}/{HTML_NAME}")
    for fold, model in models.by_fold.items():
        say(f"model of {fold}: {_files(model)}")
    name = _run_name(report)
    if not models.by_fold:
        return
    fold, model = next(iter(models.by_fold.items()))
    number = fold.removeprefix("fold") or "1"
    root = shlex.quote(_shown(report.store))
    what = f"{name} {_A_RECORDING} --root {root}" if name else f"{_place(model)} {_A_RECORDING}"
    say("next:")
    say(f"  gmp-atl predict {what}")
    say(
        f"  gmp-atl model export {shlex.join(options)} --fold {number} --what classifier --to model"
    )
    if name:
        say(f"  gmp-atl runs show {name} --root {root}")


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


def _run_name(report: Artifact) -> str:
    """The name of the newest run that came to this report; empty where none has a record."""
    named: list[tuple[float, str]] = []
    for name in run_names(report.store):
        try:
            record = read_run(report.store, name)
        except GmpAtlError:
            continue
        if record is not None and record.report == report.key.fingerprint:
            named.append((max((a.started_s for a in record.attempts), default=0.0), name))
    return max(named, default=(0.0, ""))[1]


def _files(artifact: Artifact) -> str:
    return f"{artifact.store.uri}/{artifact.key.prefix}/files"


def _place(artifact: Artifact) -> str:
    return shlex.quote(f"{_shown(artifact.store)}/{artifact.key.prefix}/files")


def _shown(store: Store) -> str:
    """A folder as people type it, or a URI."""
    return store.uri.removeprefix("file://")

"""What a person sees of a run on a terminal: our lines, and none of Ray, DeepSpeed or transformers."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.pipeline_runs import CONFIG

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.run_log import FOLDER
from gmp_atl_dist.stage_order import stage_names

pytestmark = [pytest.mark.timeout(3600), pytest.mark.nightly]

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = """
cluster.scales=[{ layer = 1, k = 8 }]
extract.layers=[1]
retrain.steps=4
"""
STAGE = rf"(?:{'|'.join(stage_names(RunConfig()))})(?: fold\d+)?"
OURS = re.compile(
    rf"{STAGE}: \S.*"
    rf"|{STAGE}(?: \S+)* [━─]+ \d+/(?:\d+|\?).*"  # the row of a stage
    rf"|{STAGE} running for .*"
    r"|(?:stage \d+ of \d+, )?(?:fold \d+ of \d+, )?"  # the row of the whole run
    r"(?:no estimate yet for the whole run|whole run ends in (?:about|more than) .*)"
    r"|\d+ stages to run.*: .*"
    r"|UAR \d+\.\d % \(95 % interval \d+\.\d to \d+\.\d; chance 25\.0 %\)"
    r"|WAR \d+\.\d % \(95 % interval \d+\.\d to \d+\.\d; always the most frequent class \d+\.\d %\)"
    r"|verdict: .*"
    r"|starting a Ray of its own for this job, on this machine only"
    r"|report: file://\S+"
    r"|model of fold\d+: file://\S+"
    r"|next:"
    r"|gmp-atl (?:predict|model export|runs show) .*"
    r"|log of Ray and other libraries: \S+"
    r"|warning: .*"
)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shown(command: list[str]) -> str:
    """What a command that succeeds prints on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=REPOSITORY,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"COLUMNS": "200"},
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break  # Linux: the other side is closed
        output += chunk
    os.close(ours)
    text = output.decode(errors="replace")
    assert process.wait() == 0, text
    return text


def check(text: str, root: Path) -> None:
    lines = [line.strip() for line in re.split(r"[\r\n]+", CONTROL.sub("", text))]
    foreign = [line for line in lines if line and not OURS.fullmatch(line)]
    assert foreign == []
    assert any(line.startswith("report: ") for line in lines)
    (told,) = (line.rpartition(" ")[2] for line in lines if line.startswith("log of Ray"))
    log = Path(told)
    assert log.parent == root / FOLDER
    assert "RayTrainWorker" in log.read_text(), "nothing of what workers print was kept"
    assert "\x1b" not in log.read_text()


def test_a_job_and_a_run_print_our_lines_alone(tmp_path: Path) -> None:
    """The launcher runs all of it; then a run with a Ray of its own repeats a part of it."""
    write_synthetic_corpus(tmp_path / "corpus", utterances_per_speaker_and_emotion=2)
    config, root = tmp_path / "run.toml", tmp_path / "root"
    config.write_text(CONFIG.replace("CORPUS", str(tmp_path / "corpus")))
    options = ["--config", str(config), "--root", str(root)]
    for line in SMALL.strip().splitlines():
        options += ["--set", line]

    text = shown(["ray_jobs.local", *options])
    check(text, root)
    assert "\x1b" not in text, "the job itself has no terminal"

    check(shown(["gmp_atl_dist.cli", "run", *options, "--set", "cluster.seed=2"]), root)

"""Two labelled corpora and one without labels, as ``ingest`` leaves them before it seals the first one.

Each utterance is a file of its own, which is the most that a listing holds. The files are links to a hole of
five seconds, because nothing decodes them: the parts that ``ingest`` would write are written with lengths as
of speech and without samples.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import (
    ClusterConfig,
    CorpusConfig,
    FoldsConfig,
    RetrainConfig,
    RunConfig,
    RuntimeConfig,
    SourceConfig,
    WarmupConfig,
)
from gmp_atl_dist.corpora.sources import reader_of, store_of
from gmp_atl_dist.records import AUDIO_SCHEMA
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.ingest import Ingest, plan_parts
from gmp_atl_dist.store.artifact import list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.writer import ArtifactWriter

LABELLED = ("acted", "podcast")
UNLABELLED = "talks"
EMOTIONS = ("angry", "happy", "neutral", "sad")
_SHARES = {"acted": 0.2, "podcast": 0.3, UNLABELLED: 0.5}
_SPEAKERS = 50
_PART_UTTERANCES = 120
"""As many five-second recordings as a part of ten minutes has."""
_PER_FOLDER = 1000
_LINKS = 30_000
"""Names of one file; ext4 allows 65,000."""
_SHORTEST_SAMPLES, _LONGEST_SAMPLES = 32_000, 128_000
_MEAN_S = 5.0
_FILE_BYTES = int(_MEAN_S * SAMPLE_RATE_HZ * 2)
_WRITERS = 16


def run_config(folder: str) -> RunConfig:
    """A run of the three corpora below ``folder``: ``folds.k``, and half of each update unlabelled."""
    places = {name: f"{folder}/{name}" for name in _SHARES}
    part_audio_s = _PART_UTTERANCES * _MEAN_S
    labelled = [
        SourceConfig(name=name, adapter="table", table="table.csv", part_audio_s=part_audio_s)
        for name in LABELLED
    ]
    talks = SourceConfig.model_validate(
        {"name": UNLABELLED, "role": "unlabelled", "part_audio_s": part_audio_s}
    )
    return RunConfig(
        corpus=CorpusConfig(emotions=EMOTIONS),
        corpora=(*labelled, talks),
        folds=FoldsConfig(by="speaker", k=5),
        warmup=WarmupConfig(gender_weight=0),
        cluster=ClusterConfig(gender="none"),
        retrain=RetrainConfig(unlabelled_share=0.5),
        runtime=RuntimeConfig(root=f"{folder}/root", corpora=places),
    )


def write_sources(folder: str, size: int) -> None:
    """The files and tables of three corpora with ``size`` utterances together."""
    for name, share in _SHARES.items():
        root = Path(folder, name)
        count = round(share * size)
        paths = [f"{i // _PER_FOLDER:05d}/{name}-{i:08d}.wav" for i in range(count)]
        _link_all(root, paths)
        if name == UNLABELLED:
            continue
        columns = {
            "id": [path[6:-4] for path in paths],
            "path": paths,
            "speaker": [f"s{i % _SPEAKERS:02d}" for i in range(count)],
            "gender": [("female", "male")[i % 2] for i in range(count)],
            "emotion": [EMOTIONS[i // _SPEAKERS % len(EMOTIONS)] for i in range(count)],
        }
        pacsv.write_csv(pa.table(columns), root / "table.csv")


def _link_all(root: Path, paths: list[str]) -> None:
    root.mkdir(parents=True)
    file = root
    for number, path in enumerate(paths):
        if number % _PER_FOLDER == 0:
            (root / path).parent.mkdir()
        if number % _LINKS:
            os.link(file, root / path)
            continue
        file = root / path
        with file.open("wb") as stream:
            stream.truncate(_FILE_BYTES)


def write_parts(folder: str) -> None:
    """Write each part that ``ingest`` of each source writes. Nothing is sealed, as after a kill."""
    config = run_config(folder)
    store = Store.open(config.runtime.root)
    for source in config.corpora:
        emotions = config.corpus.emotions
        read = reader_of(config, source)
        stage = Ingest(source.corpus(emotions), store_of(config, source), read, source.name)
        out = ArtifactWriter(store, stage.key)
        rng = np.random.default_rng(0)
        with ThreadPoolExecutor(_WRITERS) as pool:
            tasks = plan_parts(stage.listing, stage.config.part_audio_s)
            for _ in pool.map(
                out.put_part, *zip(*(_part(task, rng) for task in tasks), strict=True)
            ):
                pass


def unseal(store: Store) -> None:
    """Remove what an earlier round has sealed; the parts stay."""
    for key in list_artifacts(store):
        store.delete(key.manifest_path if key.kind == Ingest.kind else key.prefix)


def _part(task: Task, rng: np.random.Generator) -> tuple[str, pa.Table]:
    """The part of a task: lengths as of speech, and no samples."""
    listed = json.loads(task.payload)
    columns = {
        name: [u[name] for u in listed]
        for name in ("utterance_id", "speaker", "gender", "emotion", "session", "split")
    }
    lengths = rng.integers(_SHORTEST_SAMPLES, _LONGEST_SAMPLES, len(listed))
    columns |= {
        "num_samples": lengths,
        "audio_sha256": [os.urandom(32).hex() for _ in listed],
        "part": [task.name] * len(listed),
        "row": range(len(listed)),
        "pcm16": [b""] * len(listed),
    }
    return task.name, pa.table(columns, schema=AUDIO_SCHEMA)

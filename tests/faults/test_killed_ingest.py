"""An ingest that is killed in the middle of a shard resumes after the parts that it has stored.

Between the kill and the restart, the recordings of these parts are wiped out of the shard. An ingest that
decoded one of them again would find silence.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from support.one_process import context_of, ingest, no_ray
from support.pipeline_runs import Root, finished, started
from support.shards import AUDIO_TYPE, EMOTIONS, tar_bytes

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.stages.ingest import Ingest, plan_parts
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import read_utterances

pytest_plugins = ["support.pipeline_runs"]
pytestmark = [pytest.mark.timeout(1200), pytest.mark.nightly]

CLIPS = 240
GENDERS = ("female", "male", "female")
ADAPTERS = {"tar": "webdataset", "parquet": "huggingface"}


def clips() -> dict[str, bytes]:
    """Noise of a second each, at 48 kHz, so that a part takes some milliseconds."""
    found: dict[str, bytes] = {}
    for i in range(CLIPS):
        out = io.BytesIO()
        noise = np.random.default_rng(i).normal(0, 0.1, 48_000)
        sf.write(out, noise, 48_000, format="WAV")
        found[f"c{i:03d}"] = out.getvalue()
    return found


def write_shard(corpus: Path, layout: str, audio: dict[str, bytes]) -> Path:
    """One shard with all clips."""
    corpus.mkdir()
    labels = [
        {"speaker": f"s{i % 3}", "gender": GENDERS[i % 3], "emotion": EMOTIONS[i % 2]}
        for i in range(CLIPS)
    ]
    path = corpus / f"train-0.{layout}"
    if layout == "tar":
        path.write_bytes(
            tar_bytes(
                member
                for (name, data), label in zip(audio.items(), labels, strict=True)
                for member in (
                    (f"{name}.wav", data),
                    (f"{name}.json", json.dumps(label).encode()),
                )
            )
        )
        return path
    rows = [
        {"id": name, "audio": {"bytes": data, "path": f"{name}.wav"}, **label}
        for (name, data), label in zip(audio.items(), labels, strict=True)
    ]
    fields = [("id", pa.string()), ("audio", AUDIO_TYPE)]
    fields += [(name, pa.string()) for name in ("speaker", "gender", "emotion")]
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    # One row group: the kill is in the middle of it.
    pq.write_table(table, path, compression="none", use_dictionary=False)
    return path


def wipe(shard: Path, recordings: list[bytes]) -> None:
    """The samples of these recordings become zeros; the shard looks as before."""
    before, data = shard.stat(), bytearray(shard.read_bytes())
    for recording in recordings:
        at = data.index(recording) + 44
        data[at : at + len(recording) - 44] = bytes(len(recording) - 44)
    shard.write_bytes(data)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))


def stored(artifact: Artifact) -> dict[str, tuple[str, str, int]]:
    return {u.utterance_id: (u.audio_sha256, u.part, u.row) for u in read_utterances(artifact)}


@pytest.mark.parametrize("layout", ["tar", "parquet"])
def test_a_killed_ingest_reads_no_stored_recording_again(
    tmp_path: Path, ray_folder: Path, layout: str
) -> None:
    audio = clips()
    shard = write_shard(tmp_path / "corpus", layout, audio)
    keys = {"adapter": ADAPTERS[layout], "part_audio_s": 3.0, "max_bad_fraction": 0.0}
    with no_ray():
        whole = ingest(context_of(tmp_path / "whole", tmp_path / "corpus"), **keys)
    source = Store.open(str(tmp_path / "corpus"))
    listing = Ingest(CorpusConfig.model_validate(keys), source).listing
    tasks = plan_parts(listing, 3.0)

    config = tmp_path / "run.toml"
    config.write_text(
        f'[corpus]\nadapter = "{keys["adapter"]}"\npart_audio_s = 3.0\nmax_bad_fraction = 0.0\n'
        f'[runtime]\ncorpus = "{tmp_path / "corpus"}"\n'
        f"[runtime.ingest]\nworkers = 1\n"
    )
    root = Root(tmp_path / "root")
    command = ("stage", "ingest", "--config", str(config), "--root", str(root.folder))
    with started(*command, log=tmp_path / "killed") as run:
        run.until(lambda: len(root.receipts("ingest")) >= 3, "three receipts")
        run.kill_driver()
    assert not root.is_sealed("ingest")
    names = {p.name.removesuffix(".parquet.json") for p in root.receipts("ingest")}
    done = [task for task in tasks if task.name in names]
    assert 3 <= len(done) < len(tasks)
    wiped = [row["utterance_id"] for task in done for row in json.loads(task.payload)]
    wipe(shard, [audio[name] for name in wiped])

    output = finished(*command, log=tmp_path / "finished")

    assert f"{len(done)} of {len(tasks)} parts were done before" in output
    with no_ray():
        again = ingest(context_of(root.folder, tmp_path / "corpus"), **keys)
    assert stored(again) == stored(whole)
    assert again.identity == whole.identity

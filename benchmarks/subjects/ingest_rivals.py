"""What others do with the same clips: ``datasets`` and Lhotse, each with its own decoding and storage.

Neither package is needed for anything else. They are imported where they are used, so that a table without
them can be made too.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.cpu_time import own_cpu_s
from benchmarks.subjects.ingesting import Ingested
from gmp_atl_dist.audio import SAMPLE_RATE_HZ

INSTALL = "pip install 'gmp_atl_dist[bench-ingest]'"
_SHARD_CLIPS = 100


def why_no_datasets() -> str:
    """What is missing for ``datasets`` to decode audio; "" if nothing is."""
    try:
        import datasets  # pyright: ignore[reportMissingImports]  # noqa: F401
        import torchcodec.decoders  # pyright: ignore[reportMissingImports]  # noqa: F401
    except (ImportError, OSError, RuntimeError) as e:
        first = str(e).strip().partition("\n")[0]
        return (
            f"{type(e).__name__}: {first[:120]}; {INSTALL}, with the torchcodec of your torch, and the "
            f"shared libraries of FFmpeg on LD_LIBRARY_PATH"
        )
    return ""


def why_no_lhotse() -> str:
    """What is missing for Lhotse; "" if nothing is."""
    try:
        import lhotse  # pyright: ignore[reportMissingImports]  # noqa: F401
    except (ImportError, OSError) as e:
        return f"{type(e).__name__}: {e}; {INSTALL}"
    return ""


def datasets_map(folder: str, layout: str, workers: int) -> Ingested:
    """``Dataset.map`` over ``Audio(16 kHz)``, into 16-bit samples in Arrow files.

    The call of ``map`` alone is measured: making the table of Parquet shards or of paths is not.
    """
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as cache:
        os.environ["HF_HOME"] = cache
        os.environ["HF_HUB_OFFLINE"] = "1"
        import datasets  # pyright: ignore[reportMissingImports]

        datasets.disable_progress_bars()
        shards = [str(path) for path in sorted(Path(folder).glob("*.parquet"))]
        if layout == "parquet":
            table = datasets.Dataset.from_parquet(shards, cache_dir=cache)
        else:
            wavs = [str(path) for path in sorted(Path(folder).glob("*.wav"))]
            table = datasets.Dataset.from_dict({"audio": wavs})
        table = table.cast_column("audio", datasets.Audio(sampling_rate=SAMPLE_RATE_HZ))
        features = datasets.Features({"pcm16": datasets.List(datasets.Value("int16"))})
        started_s, used_s = time.perf_counter(), own_cpu_s()
        stored = table.map(
            _pcm16,
            num_proc=workers,
            remove_columns=table.column_names,
            features=features,
            cache_file_name=f"{cache}/stored.arrow",
        )
        took_h = (time.perf_counter() - started_s) / 3600
        cpu_h = (own_cpu_s() - used_s) / 3600
        samples = sum(len(chunk.flatten()) for chunk in stored.data.column("pcm16").chunks)
    return Ingested(samples / SAMPLE_RATE_HZ / 3600, took_h * workers, cpu_h=cpu_h)


def _pcm16(example: dict[str, Any]) -> dict[str, Any]:
    mono = example["audio"].get_all_samples().data.mean(0).numpy()
    return {"pcm16": np.clip(np.rint(mono * 32768), -32768, 32767).astype(np.int16)}


def lhotse_shar(folder: str, workers: int) -> Ingested:
    """``CutSet.to_shar`` of cuts that are resampled to 16 kHz, as 16-bit WAV in tar files.

    The call of ``to_shar`` alone is measured: making the cuts, which reads every header, is not.
    """
    from lhotse import (  # pyright: ignore[reportMissingImports]
        CutSet,
        Recording,
        RecordingSet,
    )

    paths = sorted(Path(folder).glob("*.wav"))
    recordings = RecordingSet.from_recordings(Recording.from_file(path) for path in paths)
    cuts = CutSet.from_manifests(recordings=recordings).resample(SAMPLE_RATE_HZ).to_eager()
    with tempfile.TemporaryDirectory(prefix="gmp-atl-bench-") as out:
        started_s, used_s = time.perf_counter(), own_cpu_s()
        cuts.to_shar(out, {"recording": "wav"}, shard_size=_SHARD_CLIPS, num_jobs=workers)
        took_h = (time.perf_counter() - started_s) / 3600
        cpu_h = (own_cpu_s() - used_s) / 3600
    return Ingested(sum(cut.duration for cut in cuts) / 3600, took_h * workers, cpu_h=cpu_h)

"""Clips of noise as loose files with a table, as tar shards of WebDataset, and as Parquet shards."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

LAYOUTS = {"loose": "table", "tar": "webdataset", "parquet": "huggingface"}
"""The folder of each layout, and the adapter that reads it."""
_CLIP_S = (1.5, 6.5)
_SPEAKERS = 10
_CLIPS_PER_SHARD = 250
_ROW_GROUP_ROWS = 50
_AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_clips(folder: str, clips: int, rate_hz: int) -> None:
    """The same 16-bit WAV files in every layout: seeded noise in syllables, so that no two are equal."""
    root = Path(folder)
    for name in LAYOUTS:
        (root / name).mkdir()
    rng = np.random.default_rng(0)
    lines = ["id,path,speaker,gender,emotion"]
    for first in range(0, clips, _CLIPS_PER_SHARD):
        shard: list[tuple[str, bytes, dict[str, str]]] = []
        for i in range(first, min(first + _CLIPS_PER_SHARD, clips)):
            name, audio, labels = f"{i:05d}", _wav(rng, rate_hz), _labels(i)
            (root / "loose" / f"{name}.wav").write_bytes(audio)
            lines.append(",".join((name, f"{name}.wav", *labels.values())))
            shard.append((name, audio, labels))
        number = first // _CLIPS_PER_SHARD
        _write_tar(root / "tar" / f"train-{number:06d}.tar", shard)
        _write_parquet(root / "parquet" / f"train-{number:05d}.parquet", shard)
    (root / "loose" / "manifest.csv").write_text("\n".join(lines) + "\n")


def _wav(rng: np.random.Generator, rate_hz: int) -> bytes:
    samples = round(rng.uniform(*_CLIP_S) * rate_hz)
    loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * np.arange(samples) / rate_hz)
    out = io.BytesIO()
    sf.write(out, 0.1 * loudness * rng.normal(size=samples), rate_hz, format="WAV")
    return out.getvalue()


def _labels(i: int) -> dict[str, str]:
    gender, emotion = ("female", "male")[i % 2], ("happy", "sad")[i // _SPEAKERS % 2]
    return {"speaker": f"s{i % _SPEAKERS}", "gender": gender, "emotion": emotion}


def _write_tar(path: Path, shard: list[tuple[str, bytes, dict[str, str]]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, audio, labels in shard:
            for suffix, data in (("wav", audio), ("json", json.dumps(labels).encode())):
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _write_parquet(path: Path, shard: list[tuple[str, bytes, dict[str, str]]]) -> None:
    rows = [
        {"id": name, "audio": {"bytes": audio, "path": f"{name}.wav"}, **labels}
        for name, audio, labels in shard
    ]
    fields = [("id", pa.string()), ("audio", _AUDIO)]
    fields += [(name, pa.string()) for name in ("speaker", "gender", "emotion")]
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    pq.write_table(table, path, row_group_size=_ROW_GROUP_ROWS, compression="none")

"""The same utterances as loose files, tar shards, Parquet shards and Lhotse manifests."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from gmp_atl_dist.store.filesystem import Store
from support.trees import recording

EMOTIONS = ("happy", "sad")
AUDIO_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True)
class Sample:
    """One utterance. Ids are in another order than shards, so that an order by ids mixes shards."""

    number: int

    @property
    def id(self) -> str:
        return f"u{self.number * 7 % 12:02d}"

    @property
    def emotion(self) -> str:
        return EMOTIONS[self.number % 2]

    @property
    def speaker(self) -> str:
        return f"s{self.number % 3}"

    @property
    def gender(self) -> str:
        return ("female", "male", "female")[self.number % 3]

    @property
    def audio(self) -> bytes:
        return recording(200.0 + 10 * self.number, 0.2 + self.number / 50, "flac")

    @property
    def labels(self) -> dict[str, str]:
        return {"speaker": self.speaker, "emotion": self.emotion, "gender": self.gender}


SAMPLES = tuple(Sample(i) for i in range(12))
SHARDS = (SAMPLES[:5], SAMPLES[5:9], SAMPLES[9:])


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar file with these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def put_loose(store: Store) -> None:
    lines = ["id,path,speaker,gender,emotion"]
    for sample in SAMPLES:
        store.put(f"{sample.id}.flac", sample.audio)
        labels = (sample.speaker, sample.gender, sample.emotion)
        lines.append(",".join((sample.id, f"{sample.id}.flac", *labels)))
    store.put("manifest.csv", "\n".join(lines).encode())


def put_tars(store: Store) -> None:
    for i, samples in enumerate(SHARDS):
        members: list[tuple[str, bytes]] = []
        for sample in samples:
            members.append((f"{sample.id}.flac", sample.audio))
            members.append((f"{sample.id}.json", json.dumps(sample.labels).encode()))
        store.put(f"train-{i:06d}.tar", tar_bytes(members))
    store.put("README.md", b"x")


def parquet_bytes(samples: Sequence[Sample], *, rows: int = 2) -> bytes:
    """A shard as ``datasets`` writes it: bytes in a struct, class labels as numbers."""
    features = {"emotion": {"names": list(EMOTIONS), "_type": "ClassLabel"}}
    features["audio"] = {"_type": "Audio"}  # pyright: ignore[reportArgumentType]
    table = pa.table(
        {
            "utt": [sample.id for sample in samples],
            "audio": pa.array(
                [{"bytes": s.audio, "path": f"{s.id}.flac"} for s in samples], AUDIO_TYPE
            ),
            "emotion": [EMOTIONS.index(sample.emotion) for sample in samples],
            "speaker": [sample.speaker for sample in samples],
            "gender": [sample.gender for sample in samples],
        }
    )
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, row_group_size=rows)
    return buffer.getvalue()


def put_parquet(store: Store) -> None:
    for i, samples in enumerate(SHARDS):
        store.put(f"data/train-{i:05d}-of-00003.parquet", parquet_bytes(samples))
    store.put("README.md", b"x")
    store.put("dataset_infos.json", b"{}")


def cut_of(sample: Sample, **changes: object) -> dict[str, object]:
    """A cut of a whole recording."""
    duration = 0.2 + sample.number / 50
    supervision = {"id": f"sup-{sample.id}", "recording_id": sample.id, "start": 0.0}
    supervision |= {"duration": duration, "channel": 0, "speaker": sample.speaker}  # pyright: ignore
    supervision |= {"gender": sample.gender, "custom": {"emotion": sample.emotion}}  # pyright: ignore
    source = {"type": "file", "channels": [0], "source": f"wav/{sample.id}.flac"}
    recording_ = {
        "id": sample.id,
        "sources": [source],
        "sampling_rate": 16000,
        "duration": duration,
    }
    cut: dict[str, object] = {"id": sample.id, "start": 0.0, "duration": duration, "channel": 0}
    return (
        cut | {"supervisions": [supervision], "recording": recording_, "type": "MonoCut"} | changes
    )


def jsonl_gz(items: Iterable[object]) -> bytes:
    return gzip.compress("".join(json.dumps(item) + "\n" for item in items).encode())


def put_cuts(store: Store) -> None:
    for sample in SAMPLES:
        store.put(f"wav/{sample.id}.flac", sample.audio)
    store.put("cuts.jsonl.gz", jsonl_gz(cut_of(sample) for sample in SAMPLES))


def put_supervisions(store: Store) -> None:
    cuts = [cut_of(sample) for sample in SAMPLES]
    for sample in SAMPLES:
        store.put(f"wav/{sample.id}.flac", sample.audio)
    supervisions = [{**cut["supervisions"][0], "id": cut["id"]} for cut in cuts]  # pyright: ignore
    store.put(
        "recordings_all.jsonl", b"".join(json.dumps(c["recording"]).encode() + b"\n" for c in cuts)
    )
    store.put("supervisions_all.jsonl.gz", jsonl_gz(supervisions))


LAYOUTS = {
    "table": (put_loose, {}),
    "webdataset": (put_tars, {}),
    "huggingface": (put_parquet, {"columns": {"id": "utt"}}),
    "lhotse": (put_cuts, {}),
    "lhotse in two files": (put_supervisions, {}),
}
"""How each layout is written, and the keys of ``[corpus]`` that read it. The adapter is the first word."""

"""What it costs to compare what is read with its receipt: CPU seconds of reading with and without hashing.

    python -m benchmarks.reads

An audio part of some minutes of speech and a file of some hundred MB, as weights are, are read from a folder.
CPU seconds hardly depend on other work on the machine.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from itertools import count

import pyarrow as pa

from benchmarks.harness.command import Benchmark, positive
from benchmarks.harness.rounds import Spread, interleaved
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.records import AUDIO_SCHEMA
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_audio_part
from gmp_atl_dist.store.writer import ArtifactWriter

KEYS = {
    "part_cpu_s_per_h": "CPU seconds to open and read an audio part the second time, per hour of audio",
    "part_first_cpu_s_per_h": "the same when a process opens it first: hashing is added",
    "file_cpu_s_per_gb": "CPU seconds to read a file without a comparison, per GB",
    "file_checked_cpu_s_per_gb": "the same with the comparison, as every reading of a file is",
}
_UTTERANCE_S = 5
_spellings = count(1)


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=positive, default=5, metavar="N", help="measurements of each kind"
    )
    parser.add_argument(
        "--minutes", type=positive, default=60, metavar="M", help="audio in the part"
    )
    parser.add_argument(
        "--file-mb", type=positive, default=380, metavar="MB", help="size of the file"
    )


def _measure(args: Namespace) -> dict[str, Spread]:
    with tempfile.TemporaryDirectory(prefix="gmp-atl-") as folder:
        artifact = _made(Store.open(folder), args.minutes, args.file_mb)
        path = f"{artifact.key.prefix}/files/weights"
        subjects = {
            # Another URI of the same folder: its parts were not opened before.
            "part_first_cpu_s_per_h": lambda: _read_part(_unopened(artifact)),
            "part_cpu_s_per_h": lambda: _read_part(artifact),
            "file_cpu_s_per_gb": lambda: _cpu_s(lambda: artifact.store.read(path)),
            "file_checked_cpu_s_per_gb": lambda: _cpu_s(lambda: artifact.read_file("weights")),
        }
        _read_part(artifact)
        measured = interleaved(subjects, args.rounds)
    units = {"h": args.minutes / 60, "gb": args.file_mb / 1e3}
    return {
        name: Spread.of(value / units[name.rpartition("_")[2]] for value in values)
        for name, values in measured.items()
    }


def _unopened(artifact: Artifact) -> Artifact:
    """The same folder by a spelling of its URI that this process has not opened a part of."""
    store = Store.open(artifact.store.uri)
    store.uri = "file://" + "/." * next(_spellings) + store.uri.removeprefix("file://")
    return replace(artifact, store=store)


def _read_part(artifact: Artifact) -> float:
    return _cpu_s(lambda: read_audio_part(artifact, "part-00000"))


def _cpu_s(work: Callable[[], object]) -> float:
    started_s = time.process_time()
    work()
    return time.process_time() - started_s


def _made(store: Store, minutes: int, file_mb: int) -> Artifact:
    """An artefact with a part of random samples and a file of random bytes."""
    writer = ArtifactWriter(store, ArtifactKey("ingest", "0" * 64))
    num_samples = _UTTERANCE_S * SAMPLE_RATE_HZ
    rows = [_row(number, num_samples) for number in range(60 * minutes // _UTTERANCE_S)]
    writer.put_part("part-00000", pa.Table.from_pylist(rows, schema=AUDIO_SCHEMA))
    writer.put_file("weights", secrets.token_bytes(file_mb * 1_000_000))
    return writer.seal(version=1, science={}, inputs={})


def _row(number: int, num_samples: int) -> dict[str, object]:
    pcm16 = secrets.token_bytes(2 * num_samples)
    names = {"utterance_id": f"u{number:06d}", "audio_sha256": sha256(pcm16).hexdigest()}
    numbers = {"num_samples": num_samples, "row": number, "pcm16": pcm16}
    return {**dict.fromkeys(AUDIO_SCHEMA.names, "x"), **names, **numbers}


BENCHMARK = Benchmark(
    name="reads",
    about=__doc__,
    keys=KEYS,
    quick={"rounds": 2, "minutes": 5, "file_mb": 50},
    add_options=_add_options,
    measure=_measure,
)

if __name__ == "__main__":
    raise SystemExit(BENCHMARK.run())

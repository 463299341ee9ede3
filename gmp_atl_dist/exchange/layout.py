"""The format of fairseq's files of features and labels.

``dump_hubert_feature.py`` and ``dump_km_label.py`` of its ``examples/hubert/simple_kmeans`` write these
files, with NAME = ``{split}_{rank}_{nshard}``:

- ``NAME.npy``: fp32 [frames of all utterances, dim]
- ``NAME.len``: one line per utterance with its number of frames
- ``NAME.km``: one line per utterance with its labels, separated by spaces
- ``{split}.tsv``: a line with the root, then one line per utterance: its path below the root, a tab,
  its number of samples

All files have the utterances in the same order. The numbers of samples and frames show a listing in
another order, except where recordings have the same length. The number of frames does not always follow
from the number of samples: fairseq cuts audio into chunks of 100 s and loses about one frame at each cut.

Shape suffixes: M frames of all utterances, D hidden.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, MIN_SAMPLES, SAMPLE_RATE_HZ, num_frames
from gmp_atl_dist.errors import ArtifactError

_SHORTEST_CHUNK = 10 * SAMPLE_RATE_HZ
_MAX_INT32 = 2**31 - 1
# fairseq writes with npy_append_array, which leaves space in the header for a larger shape.
_NPY_SPARE_BYTES = 64


@dataclass(frozen=True)
class FairseqFiles:
    """The files of one import. Without ``tsv`` the ids are NAME-000000, NAME-000001, ..."""

    npy: Path
    lengths: Path
    tsv: Path | None = None
    km: Path | None = None

    @classmethod
    def beside(
        cls,
        npy: Path,
        lengths: Path | None = None,
        tsv: Path | None = None,
        km: Path | None = None,
    ) -> FairseqFiles:
        """A file that is not given is searched beside ``npy`` under its usual name."""

        def existing(*names: str) -> Path | None:
            return next((p for p in map(npy.with_name, names) if p.is_file()), None)

        return cls(
            npy,
            lengths or npy.with_name(f"{npy.stem}.len"),
            tsv or existing(f"{npy.stem}.tsv", tsv_name(npy.stem)),
            km or existing(f"{npy.stem}.km"),
        )


def tsv_name(name: str) -> str:
    """The ``.tsv`` lists a whole split, not a shard. It fits a file that is the only shard."""
    return f"{name.removesuffix('_0_1')}.tsv"


def fewest_samples(frames: int) -> int:
    """The smallest number of samples that gives this number of frames."""
    return (frames - 1) * FRAME_HOP_SAMPLES + MIN_SAMPLES if frames else 0


def npy_header(frames: int, dim: int) -> bytes:
    """The header of a ``.npy`` of fp32 as npy_append_array before 0.9.14 writes it: 192 bytes."""
    header = io.BytesIO()
    shape = (frames, dim)
    np.lib.format.write_array_header_2_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    magic, text = header.getvalue()[:8], header.getvalue()[12:].removesuffix(b"\n")
    text += b" " * _NPY_SPARE_BYTES + b"\n"
    return magic + struct.pack("<I", len(text)) + text


def open_npy(path: Path) -> np.ndarray:
    """Features, fp32 or fp16 [M, D], mapped into memory.

    Raises:
        ArtifactError: the file is not such an array.
    """
    try:
        # Unlike np.load(), this accepts neither archives nor pickles.
        x_MD = np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except (OSError, ValueError, EOFError) as e:
        raise ArtifactError(
            f"{path}: cannot be read as an array of numbers ({e}); give a complete .npy file"
        ) from e
    if x_MD.dtype.str not in ("<f4", "<f2") or x_MD.ndim != 2:
        raise ArtifactError(
            f"{path}: is {x_MD.dtype.str} of shape {x_MD.shape}, expected little-endian float32 or "
            f"float16 [frames, dim]; convert it with numpy"
        )
    return x_MD


def read_lengths(path: Path) -> list[int]:
    """The number of frames of each utterance."""
    lines = _lines(path)
    frames = [_number(line.rstrip()) for line in lines]
    problems = [
        f"line {i}: {line!r} is not a number of frames"
        for i, (line, count) in enumerate(zip(lines, frames, strict=True), 1)
        if count is None
    ]
    if problems or not lines:
        raise ArtifactError.of_all(
            f"{path}: expected one whole number per line; write it again with the features:",
            problems or ["the file has no line"],
        )
    return [count for count in frames if count is not None]


def read_ids(files: FairseqFiles, frames: Sequence[int]) -> list[str]:
    """The id of each utterance: its path in the ``.tsv``, or a number.

    Args:
        files: of the import.
        frames: the number of frames of each utterance, which the numbers of samples must fit.

    Raises:
        ArtifactError: the ``.tsv`` is damaged, or lists other utterances or another order.
    """
    utterances = len(frames)
    if files.tsv is None:
        width = max(6, len(str(utterances - 1)))
        return [f"{files.npy.stem}-{i:0{width}d}" for i in range(utterances)]
    rows = [line.rstrip().split("\t") for line in _lines(files.tsv)[1:]]
    problems = [
        f"line {i}: {row!r} is not a path, a tab and a number of samples"
        for i, row in enumerate(rows, 2)
        if len(row) != 2 or not row[0] or _number(row[1]) is None
    ]
    first_lines: dict[str, int] = {}
    for i, (path, *_) in enumerate(rows, 2):
        if first_lines.setdefault(path, i) != i:
            problems.append(f"line {i}: {path!r} occurs in line {first_lines[path]} as well")
    if len(rows) != utterances:
        problems.append(
            f"{len(rows)} utterances, but {files.lengths} has {utterances}; give the lines of this "
            f"shard, after a first line with the root"
        )
    if problems:
        raise ArtifactError.of_all(f"{files.tsv}: does not list the utterances:", problems)
    misfits = [
        f"line {i}: {path!r} has {samples} samples, so {_fewest_frames(int(samples))} to "
        f"{num_frames(int(samples))} frames, but {count} are given"
        for i, ((path, samples), count) in enumerate(zip(rows, frames, strict=True), 2)
        if not _fewest_frames(int(samples)) <= count <= num_frames(int(samples))
    ]
    if misfits:
        order = sorted(int(row[1]) for row in rows)
        same = all(
            _fewest_frames(samples) <= count <= num_frames(samples)
            for samples, count in zip(order, sorted(frames), strict=True)
        )
        what = (
            "lists the utterances in another order than" if same else "lists other utterances than"
        )
        raise ArtifactError.of_all(
            f"{files.tsv}: {what} {files.lengths}; give the listing by which the features were extracted:",
            misfits,
        )
    return [row[0] for row in rows]


def _fewest_frames(samples: int) -> int:
    """The smallest number of frames of a recording: one fewer for each cut into chunks, and one more.

    fairseq's chunks have 100 s by default. Chunks of 10 s and more are allowed for.
    """
    return max(0, num_frames(samples) - 1 - samples // _SHORTEST_CHUNK)


def read_labels(km: Path, lengths: Path, frames: Sequence[int]) -> np.ndarray:
    """The label of every frame, int32 [M]."""
    lines = _lines(km)
    if len(lines) != len(frames):
        raise ArtifactError(
            f"{km}: has {len(lines)} lines, but {lengths} has {len(frames)}; give the labels of "
            f"these features"
        )
    labels_M = np.empty(sum(frames), "<i4")
    problems: list[str] = []
    filled = 0
    for i, (line, count) in enumerate(zip(lines, frames, strict=True), 1):
        words = line.split()
        labels = [_number(word) for word in words]
        wrong = [word for word, label in zip(words, labels, strict=True) if label is None]
        if wrong:
            problems.append(f"line {i}: {wrong[0]!r} is not a label")
        elif len(labels) != count:
            problems.append(f"line {i}: {len(labels)} labels, but {lengths} says {count}")
        else:
            labels_M[filled : filled + count] = labels
        filled += count
    if problems:
        raise ArtifactError.of_all(
            f"{km}: expected a whole number of at least 0 per frame; label these features again:",
            problems,
        )
    return labels_M


def sha256_of(path: Path) -> str:
    """The hex digest of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else f"not UTF-8: {e}"
        raise ArtifactError(f"{path}: cannot be read ({reason}); give an existing file") from e
    # Not splitlines(), which also splits at characters that may be part of a path.
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def _number(word: str) -> int | None:
    """A whole number of at least 0 that fits int32, else None. int() would accept more than digits."""
    if not (word.isascii() and word.isdigit() and len(word) <= len(str(_MAX_INT32))):
        return None
    value = int(word)
    return value if value <= _MAX_INT32 else None

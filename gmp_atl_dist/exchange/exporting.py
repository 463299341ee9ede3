"""Exports artefacts of kinds ``extract`` and ``label`` to fairseq's files.

The files get their names when all of them are complete. A killed export leaves at most ``.tmp-*``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import IO

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.exchange.layout import fewest_samples, npy_header, tsv_name
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import feature_receipts, stream_batches
from gmp_atl_dist.store.labels import stream_labels

_BATCH_FRAMES = 8_000

Listing = Sequence[tuple[str, int]]
"""Utterance ids with their numbers of frames, in order."""


def export_features(features: Artifact, layer: int, folder: Path, name: str) -> Listing:
    """Write a layer as ``.npy`` (fp32), ``.len`` and ``.tsv``; return what was written, in order.

    Raises:
        ArtifactError: the layer is missing or damaged, or the folder cannot be written.
    """
    receipts = feature_receipts(features, layer)
    frames = sum(receipt.frames for receipt in receipts.values())
    listing: list[tuple[str, int]] = []
    with _complete_files(folder, [f"{name}.len", tsv_name(name), f"{name}.npy"]) as files:
        lengths, tsv, npy = files
        tsv.write(b".\n")
        for batch in stream_batches(features, layer, _BATCH_FRAMES, parts=tuple(receipts)):
            if not listing:
                npy.write(npy_header(frames, batch.x_MD.shape[1]))
            npy.write(batch.x_MD.data)
            rows = list(zip(batch.utterance_ids, batch.num_frames, strict=True))
            lengths.writelines(f"{count}\n".encode() for _, count in rows)
            tsv.writelines(_tsv_line(*row) for row in rows)
            listing += rows
        written = sum(count for _, count in listing)
        if written != frames:
            raise ArtifactError(
                f"{features.key.prefix} holds {written} frames of layer {layer}, but its receipts say "
                f"{frames}; extract again in a new root"
            )
    return listing


def _tsv_line(utterance_id: str, frames: int) -> bytes:
    if any(c in utterance_id for c in "\t\n\r"):
        raise ArtifactError(
            f"utterance {utterance_id!r}: a name in a .tsv cannot contain a tab or a line break; "
            f"rename the recording"
        )
    return f"{utterance_id}\t{fewest_samples(frames)}\n".encode()


def export_labels(
    labels: Artifact, scale: int, folder: Path, name: str, listing: Listing | None = None
) -> Listing:
    """Write a scale as ``.km``; return what was written, in order.

    Args:
        labels: the artefact of the labels.
        scale: its number.
        folder: is created if it does not exist.
        name: the file's name without its suffix.
        listing: the utterances that are expected, if given.

    Raises:
        ArtifactError: the scale is missing, utterances differ, or the folder cannot be written.
    """
    written: list[tuple[str, int]] = []
    scales: set[int] = set()
    with _complete_files(folder, [f"{name}.km"]) as (km,):
        for row in stream_labels(labels):
            scales.update(range(len(row.ids)))
            if scale < len(row.ids):
                km.write(" ".join(map(str, row.ids[scale].tolist())).encode() + b"\n")
                written.append((row.utterance_id, row.num_frames))
        if not written:
            raise ArtifactError(
                f"{labels.key.prefix} has no labels of scale {scale}; it has {sorted(scales)}"
            )
        _check_listing(labels, written, listing)
    return written


def _check_listing(labels: Artifact, written: Listing, listing: Listing | None) -> None:
    for (a, _), (b, _) in pairwise(written):
        if a >= b:
            raise ArtifactError(
                f"{labels.key.prefix}: utterance {b!r} follows {a!r}, which is not in order; another "
                f"version wrote it; label again in a new root"
            )
    if listing is None:
        return
    for labelled, extracted in zip_longest(written, listing):
        if labelled != extracted:
            raise ArtifactError(
                f"{labels.key.prefix} does not match the features: labels have {labelled}, features "
                f"have {extracted} (utterance, frames); give labels and features of one run"
            )


@contextmanager
def _complete_files(folder: Path, names: Sequence[str]) -> Iterator[list[IO[bytes]]]:
    """Files that get their names together when the block ends without an error."""
    for name in names:
        if name != os.path.basename(name):
            raise ArtifactError(
                f"{name!r} is not a file name in {folder}; give a name without a path"
            )
    temporary = [folder / f".tmp-{uuid.uuid4().hex}" for _ in names]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            yield [opened.enter_context(path.open("xb")) for path in temporary]
        for path, name in zip(temporary, names, strict=True):
            os.replace(path, folder / name)
    except OSError as e:
        raise ArtifactError(
            f"{folder}: cannot be written ({e.strerror or e}); give a writable folder with enough free "
            f"space"
        ) from e
    finally:
        for path in temporary:
            with suppress(OSError):
                path.unlink()

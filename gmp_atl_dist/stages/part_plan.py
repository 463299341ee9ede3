"""How the utterances of a training set are cut into parts: by frames, whatever the number of workers."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from gmp_atl_dist.inference.audio_slices import AudioSlice
from gmp_atl_dist.partition import piece_numbers
from gmp_atl_dist.runtime import Task


def plan_parts(index: pa.Table, part_frames: int) -> list[Task]:
    """Tasks over consecutive utterances of ``index``, as even in frames as the utterances allow.

    A task names the rows of each ``ingest`` part that it consists of; its cost is its number of
    frames. The plan follows from the data and ``part_frames``, never from the number of workers.
    """
    frames = index["num_frames"].to_numpy()
    count = max(1, round(int(frames.sum()) / part_frames))
    belongs = piece_numbers(frames, count)
    source = index["part"].combine_chunks()
    sources = source.indices.to_numpy()
    rows = index["row"].to_numpy()
    cuts = np.flatnonzero((np.diff(belongs) != 0) | (np.diff(sources) != 0)) + 1
    firsts = np.concatenate([[0], cuts])
    lasts = np.concatenate([cuts, [len(frames)]]) - 1
    names = source.dictionary.to_pylist()
    slices: dict[int, list[AudioSlice]] = {}
    for first, last in zip(firsts, lasts, strict=True):
        piece = AudioSlice(names[sources[first]], int(rows[first]), int(rows[last]) + 1)
        slices.setdefault(int(belongs[first]), []).append(piece)
    costs = np.bincount(belongs, weights=frames, minlength=count)
    # Numbered again, because a very long utterance may leave a number without any.
    return [
        Task(
            f"part-{number:05d}",
            json.dumps([[s.part, s.start, s.stop] for s in slices[key]]),
            float(costs[key]),
        )
        for number, key in enumerate(sorted(slices))
    ]

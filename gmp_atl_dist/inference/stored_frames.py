"""The frames of stored features that codebooks are fitted on: selected, grouped, and kept in memory.

Shape suffixes: T frames of one utterance, M of several, D hidden.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from gmp_atl_dist.audio import frame_levels_db, num_frames
from gmp_atl_dist.clustering.sample import FrameSample, initialization_rows
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import EVERYBODY
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import UtteranceFrames, read_features
from gmp_atl_dist.store.genders import training_index
from gmp_atl_dist.store.index import IndexRow, index_rows
from gmp_atl_dist.store.readers import AudioReader
from gmp_atl_dist.store.training_set import TrainingSet

_AUDIO_CACHE_BYTES = 64 << 20


@dataclass(frozen=True)
class FrameSelection:
    """The frames that a fit uses: those of a sample of a training set, in one group or by gender.

    Frames more than ``silence_db`` below the loudest one of their utterance are left out; None keeps all.
    """

    training: TrainingSet
    features: Artifact
    sample: FrameSample
    by_gender: bool
    silence_db: float | None


@dataclass(frozen=True)
class PartFrames:
    """The selected frames of one part: [M, D] of each group, and (utterance, number of frames) in order."""

    frames: dict[str, np.ndarray]
    utterances: dict[str, list[tuple[str, int]]]

    @property
    def num_bytes(self) -> int:
        return sum(x_MD.nbytes for x_MD in self.frames.values())

    def utterance_of(self, group: str, row: int) -> tuple[str, int]:
        """The utterance of a row of a group's frames, and which of its selected frames it is."""
        for utterance_id, count in self.utterances[group]:
            if row < count:
                return utterance_id, row
            row -= count
        raise IndexError(f"{row} rows past the end")

    def initialization_frames(self, group: str, share: float, seed: int) -> np.ndarray:
        """A share of the group's frames, from which first centroids are chosen."""
        x_MD, first = self.frames[group], 0
        rows: list[np.ndarray] = [np.empty(0, np.int64)]
        for utterance_id, count in self.utterances[group]:
            rows.append(first + initialization_rows(seed, utterance_id, count, share))
            first += count
        return x_MD[np.concatenate(rows)]


@dataclass
class SelectedFrameReader:
    """Reads the selected frames of parts, and keeps the parts read first, as many as memory allows.

    Parts are read in the same order in every assignment step. A cache that dropped the part used longest
    ago would drop exactly the one that is needed next. ``empty`` makes the arrays that frames are read
    into.
    """

    selection: FrameSelection
    memory_bytes: int
    empty: Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray] = np.empty
    _layer: int = -1
    _kept: dict[str, PartFrames] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._index = training_index(self.selection.training)
        self._audio = AudioReader(self.selection.training.corpus, _AUDIO_CACHE_BYTES)

    def parts(self, layer: int, names: Sequence[str], working_bytes: int) -> Iterator[PartFrames]:
        """The parts in order; ``working_bytes`` are needed beside them.

        Raises:
            CorpusError: an utterance is not of a training speaker; names it.
            ArtifactError: features do not fit the corpus, or each other.
        """
        for name in names:
            yield self.part(layer, name, working_bytes)

    def part(self, layer: int, name: str, working_bytes: int) -> PartFrames:
        """One part, as :meth:`parts`."""
        if layer != self._layer:
            self._kept.clear()
            self._layer = layer
        part = self._kept.get(name)
        if part is None:
            part = self._read(layer, name)
            if self._has_room(part.num_bytes + working_bytes):
                self._kept[name] = part
        return part

    def frame_of(self, layer: int, name: str, group: str, row: int) -> tuple[str, int]:
        """The utterance of a row of a part's frames, and the number of the frame in it."""
        part = self._kept.get(name) if layer == self._layer else None
        utterance_id, selected = (part or self._read(layer, name)).utterance_of(group, row)
        (u,) = [
            u
            for u in read_features(self.selection.features, name, layer)
            if u.utterance_id == utterance_id
        ]
        index_row = index_rows(self._index, [utterance_id])[utterance_id]
        rows = self._selected_rows(u, index_row)
        return utterance_id, selected if rows is None else int(rows[selected])

    def forget(self, name: str) -> None:
        """Keep this part no longer: its frames are somewhere else now."""
        self._kept.pop(name, None)

    def _has_room(self, num_bytes: int) -> bool:
        """Whether so much more fits into memory. The whole process counts, because libraries use some too."""
        return psutil.Process(os.getpid()).memory_info().rss + num_bytes <= self.memory_bytes

    def _read(self, layer: int, name: str) -> PartFrames:
        frames: dict[str, list[np.ndarray]] = {}
        counts: dict[str, list[tuple[str, int]]] = {}
        dims: dict[int, str] = {}
        utterances = list(read_features(self.selection.features, name, layer))
        rows = index_rows(self._index, [u.utterance_id for u in utterances])
        for u in utterances:
            row = self._checked(u, rows.get(u.utterance_id), layer)
            dims.setdefault(u.frames_TD.shape[1], u.utterance_id)
            x_TD = self._selected(u, row)
            group = row.gender if self.selection.by_gender else EVERYBODY
            if len(x_TD):
                frames.setdefault(group, []).append(x_TD)
                counts.setdefault(group, []).append((u.utterance_id, len(x_TD)))
        if len(dims) > 1:
            raise ArtifactError(
                f"features of layer {layer} in {self.selection.features.key.prefix} are of different "
                f"dim: {dims}; extract again in a new root"
            )
        return PartFrames({group: self._together(x) for group, x in frames.items()}, counts)

    def _together(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        shape = (sum(map(len, frames)), frames[0].shape[1])
        return np.concatenate(frames, out=self.empty(shape, np.result_type(*frames)))

    def _checked(self, u: UtteranceFrames, row: IndexRow | None, layer: int) -> IndexRow:
        """The utterance's row of the corpus. One that is not in the training set stops the fit."""
        self.selection.training.training_speakers.check(
            u.utterance_id, None if row is None else row.speaker
        )
        expected = 0 if row is None else num_frames(row.num_samples)
        if row is None or len(u.frames_TD) != expected:
            raise ArtifactError(
                f"utterance {u.utterance_id!r} has {len(u.frames_TD)} frames of layer {layer} in "
                f"{self.selection.features.key.prefix}, its audio gives {expected}; extract again in a "
                f"new root"
            )
        return row

    def _selected(self, u: UtteranceFrames, row: IndexRow) -> np.ndarray:
        rows = self._selected_rows(u, row)
        return u.frames_TD if rows is None else u.frames_TD[rows]

    def _selected_rows(self, u: UtteranceFrames, row: IndexRow) -> np.ndarray | None:
        """Which frames are selected; None: all."""
        sample = self.selection.sample
        by = sample.utterances.by
        group = str(getattr(row, by)) if by else ""
        if not sample.utterances.holds(u.utterance_id, group):
            return np.empty(0, np.int64)
        rows = sample.rows(u.utterance_id, group, len(u.frames_TD))
        if self.selection.silence_db is None:
            return rows
        loud = frame_levels_db(self._audio.samples(row)) >= -self.selection.silence_db
        return np.flatnonzero(loud) if rows is None else rows[loud[rows]]

"""Features that are on their way from the device: fp16, one copy per layer, checked where they were made.

Shape suffixes: M frames of several utterances, T of one, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.transfers import CopyLane, Wait

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class StartedWork(Generic[ResultT]):
    """Results of work that was started: a call waits for it. Any thread may call."""

    wait: Wait
    results: Callable[[], ResultT]

    def __call__(self) -> ResultT:
        self.wait()
        return self.results()


@dataclass(frozen=True)
class LayerFrames:
    """Features of one utterance, fp16 (T, D) by layer."""

    utterance_id: str
    frames: Mapping[int, np.ndarray]


@dataclass(frozen=True)
class StartedBatch:
    """The features of a batch. They are there when the work of the lane is done."""

    ids: Sequence[str]
    counts: Sequence[int]
    frames: Mapping[int, Tensor]
    extremes: Tensor
    """The least and the largest value of each layer; a value that is not finite shows here."""

    @classmethod
    def of(
        cls, frames: Mapping[int, Tensor], ids: Sequence[str], counts: Sequence[int], lane: CopyLane
    ) -> StartedBatch:
        """Start the copies to the host.

        Args:
            frames: (M, D) by layer on the device, the frames of all utterances one after another.
            ids: of the utterances.
            counts: frames of each.
            lane: on which the frames are computed.
        """
        narrow = {layer: x_MD.half() for layer, x_MD in frames.items()}
        # A minimum is NaN if any value is: documented for aminmax.
        extremes = torch.stack([y for x_MD in narrow.values() for y in torch.aminmax(x_MD)])
        fetched = {layer: lane.fetch(x_MD) for layer, x_MD in narrow.items()}
        return cls(ids, counts, fetched, lane.fetch(extremes))

    def utterances(self) -> Iterator[LayerFrames]:
        """Each utterance; arrays in C order, views of one array per layer.

        Raises:
            ModelError: a value is not finite, or too large for fp16; names utterance, layer and frame.
        """
        arrays = {layer: x_MD.numpy() for layer, x_MD in self.frames.items()}
        finite = bool(np.isfinite(self.extremes.numpy()).all())
        end = 0
        for name, count in zip(self.ids, self.counts, strict=True):
            start, end = end, end + count
            own = {layer: x_MD[start:end] for layer, x_MD in arrays.items()}
            if not finite:
                for layer, x_TD in own.items():
                    refuse_infinite(x_TD, name, layer)
            yield LayerFrames(name, own)


def refuse_infinite(narrow_TD: np.ndarray, utterance_id: str, layer: int) -> None:
    """Raise ModelError if an fp16 value is not finite; names the utterance, the layer and the frame."""
    finite_TD = np.isfinite(narrow_TD)
    if not finite_TD.all():
        largest = float(np.abs(np.where(finite_TD, narrow_TD, 0)).max())
        frame = int(np.argmin(finite_TD.all(axis=1)))
        raise infinite_frame(utterance_id, layer, frame, f"largest finite {largest:.3g}")


def infinite_frame(utterance_id: str, layer: int, frame: int, found: str = "") -> ModelError:
    """The error for features that are not finite in fp16. ``found`` tells about the others."""
    return ModelError(
        f"utterance {utterance_id!r}: layer {layer} has features that are not finite in fp16 at frame "
        f"{frame} ({found}{' of ' if found else ''}at most 65504); listen to the recording, or train "
        f"warmup with a lower warmup.lr"
    )


def to_fp16(x_TD: Tensor, utterance_id: str, layer: int) -> np.ndarray:
    """fp16 (T, D) in C order, on the host.

    Raises:
        ModelError: a value is not finite, or too large for fp16; names the utterance.
    """
    narrow = x_TD.to("cpu", torch.float16).numpy()
    refuse_infinite(narrow, utterance_id, layer)
    return np.ascontiguousarray(narrow)

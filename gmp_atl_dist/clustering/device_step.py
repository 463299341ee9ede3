"""Assignment steps on devices: frames are there already or are copied meanwhile, sums are made there.

The bytes of the result depend neither on the number of devices nor on which of them has a block:

- Blocks are cut from a part and a group, and an engine is given one at a time.
- Sums of frames are whole numbers (``fixed_point.py``), so devices add them in any order.
- Sums of distances and the farthest frames of a block are put together on the host, block by block.

The host starts the work on a block and does not wait for it. It waits once, at the end of the frames that
it was asked for.

Shape suffixes: M frames, D hidden, K clusters, F farthest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from gmp_atl_dist.clustering.device import (
    Copier,
    default_block_rows,
    engine_devices,
    free_bytes,
    on_device,
)
from gmp_atl_dist.clustering.device_search import (
    DeviceSearch,
    make_search,
    prepared,
    usable_rows,
)
from gmp_atl_dist.clustering.engines import Engine
from gmp_atl_dist.clustering.fixed_point import (
    MOST_ROWS,
    add_rows,
    fraction_bits,
    sums_of_squares,
)
from gmp_atl_dist.clustering.frame_parts import FramePart
from gmp_atl_dist.clustering.resident import Block, DeviceFrames
from gmp_atl_dist.clustering.state import Metric, Request
from gmp_atl_dist.clustering.statistics import FARTHEST, ClusterStatistics, NotFiniteError

_UNIT_BITS = fraction_bits(np.empty((0, 1), np.float32), "cosine")


@dataclass
class _DeviceSums:
    """What one device has added up for one request. ``sums`` holds int64 [K, D] by fraction bits."""

    search: DeviceSearch
    counts_K: torch.Tensor
    sums: dict[int, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class _BlockResult:
    """What the host puts together. The frames are not held: others need their memory.

    ``squares_K`` is fp64, ``first_unusable`` the first row that cannot be used, or ``rows``.
    """

    part: str
    group: str
    first_row: int
    rows: int
    squares_K: torch.Tensor
    first_unusable: torch.Tensor
    far_FD: torch.Tensor
    far_ids_F: torch.Tensor
    far_squared_F: torch.Tensor


class DeviceStep:
    """Assignment steps on ``devices`` (:func:`gmp_atl_dist.clustering.device.engine_devices`).

    Frames stay on devices until :meth:`forget`. ``room`` is how many bytes a device has for them.
    """

    def __init__(
        self,
        engine: Engine,
        on: Sequence[torch.device],
        *,
        block_rows: int | None = None,
        room: Callable[[torch.device], int] = free_bytes,
    ) -> None:
        self._engine: Engine = engine
        self.gpus = sum(device.type != "cpu" for device in on)
        self._block_rows = block_rows or default_block_rows(on)
        self.copiers = [Copier(device) for device in on]
        self._frames = DeviceFrames(self.copiers, self._block_rows, room)

    def close(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Frames that stay on devices are dropped; those of other parts may have the same names now."""
        self._frames.clear()

    def working_bytes(self, requests: Sequence[Request]) -> int:
        """Memory beside the frames that stay, of the host as of each device."""
        sums = sum(request.centroids_KD.size * (8 + 8 + 4 + 8) for request in requests)
        dim = max((request.centroids_KD.shape[1] for request in requests), default=1024)
        blocks = self._block_rows * dim * (3 * 2 + 2 * 4)
        return sums + blocks + (1 << 30 if self.gpus else 512 << 20)

    def over(
        self, requests: Sequence[Request], parts: Iterable[FramePart]
    ) -> list[ClusterStatistics]:
        """The statistics of each request over the frames of its group in all parts, in order.

        Raises:
            NotFiniteError: with the part, the group, and the row of its frames.
        """
        totals = [ClusterStatistics.zero(*request.centroids_KD.shape) for request in requests]
        window = _Window(self._engine, requests, self.copiers)
        rows = 0
        for part in parts:
            for block in self._frames.blocks(part, self.working_bytes(requests)):
                if rows + len(block.x_MD) > MOST_ROWS:
                    window.add_to(totals)
                    rows = 0
                window.start(part.key, block)
                rows += len(block.x_MD)
        window.add_to(totals)
        return totals


class _Window:
    """Work that was started on devices and that the host has not collected yet."""

    def __init__(
        self, engine: Engine, requests: Sequence[Request], copiers: Sequence[Copier]
    ) -> None:
        self._requests = requests
        self._results: list[list[_BlockResult]] = [[] for _ in requests]
        self._sums: list[dict[Copier, _DeviceSums]] = [
            {copier: _sums_on(copier.device, engine, request) for copier in copiers}
            for request in requests
        ]

    def start(self, part: str, block: Block) -> None:
        """Start the work on a block that is on its device."""
        frames: dict[Metric, tuple[torch.Tensor, torch.Tensor]] = {}
        x_MD = block.copied().x_MD
        assert isinstance(x_MD, torch.Tensor)
        with on_device(block.copier.device):
            for request, sums, results in zip(
                self._requests, self._sums, self._results, strict=True
            ):
                if request.group != block.group:
                    continue
                if request.metric not in frames:
                    frames[request.metric] = prepared(x_MD, request.metric)
                bits = _UNIT_BITS if request.metric == "cosine" else block.bits
                started = _started(part, block, sums[block.copier], *frames[request.metric], bits)
                results.append(started)
        block.copier.started()

    def add_to(self, totals: Sequence[ClusterStatistics]) -> None:
        """Wait for all work, and add its statistics to the totals."""
        for total, results, sums in zip(totals, self._results, self._sums, strict=True):
            _add_results(total, _on_host(results))
            for of_device in sums.values():
                total.counts_K += of_device.counts_K.cpu().numpy()
                of_device.counts_K.zero_()
            total.sums_KD += _added_up(list(sums.values()), total.sums_KD)
            results.clear()


def _sums_on(device: torch.device, engine: Engine, request: Request) -> _DeviceSums:
    centroids_KD = torch.from_numpy(np.array(request.centroids_KD, np.float32, order="C")).to(
        device
    )
    counts_K = torch.zeros(len(centroids_KD), dtype=torch.int64, device=device)
    return _DeviceSums(make_search(engine, centroids_KD, request.metric), counts_K)


def _started(
    part: str,
    block: Block,
    sums: _DeviceSums,
    x_MD: torch.Tensor,
    squares_M: torch.Tensor,
    bits: int,
) -> _BlockResult:
    squared_M, ids_M = sums.search(x_MD, squares_M)
    k = len(sums.counts_K)
    # Before anything is summed: an id outside the codebook would write outside the sums. The first row
    # that cannot be used is looked at later, so that the host does not wait.
    usable_M = usable_rows(ids_M, squared_M, squares_M, k)
    rows_M = torch.arange(len(ids_M), device=ids_M.device)
    first_unusable = torch.where(usable_M, len(ids_M), rows_M).min()
    ids_M, squared_M = torch.where(usable_M, ids_M, 0), torch.where(usable_M, squared_M, 0.0)
    if bits not in sums.sums:
        shape = (k, x_MD.shape[1])
        sums.sums[bits] = torch.zeros(shape, dtype=torch.int64, device=x_MD.device)
    add_rows(sums.sums[bits], ids_M, x_MD, bits)
    sums.counts_K.index_add_(0, ids_M, torch.ones_like(ids_M))
    # Of frames at the same distance the earlier one comes first.
    far_F = torch.sort(squared_M, descending=True, stable=True).indices[:FARTHEST]
    return _BlockResult(
        part,
        block.group,
        block.first_row,
        len(x_MD),
        sums_of_squares(squared_M, ids_M, k),
        first_unusable,
        x_MD[far_F],
        ids_M[far_F],
        squared_M[far_F],
    )


def _on_host(results: Sequence[_BlockResult]) -> list[_BlockResult]:
    """The results with their tensors on the host, in the same order; one copy per device and tensor."""
    found: dict[int, _BlockResult] = {}
    for device in dict.fromkeys(result.squares_K.device for result in results):
        numbers = [i for i, result in enumerate(results) if result.squares_K.device == device]
        here = [results[i] for i in numbers]
        sizes = [len(result.far_ids_F) for result in here]
        squares = torch.stack([result.squares_K for result in here]).cpu()
        rows = torch.stack([result.first_unusable for result in here]).cpu()
        far_x, far_ids, far_squared = (
            torch.cat([getattr(result, name) for result in here]).cpu().split(sizes)
            for name in ("far_FD", "far_ids_F", "far_squared_F")
        )
        for at, i in enumerate(numbers):
            found[i] = replace(
                results[i],
                squares_K=squares[at],
                first_unusable=rows[at],
                far_FD=far_x[at],
                far_ids_F=far_ids[at],
                far_squared_F=far_squared[at],
            )
    return [found[i] for i in range(len(results))]


def _add_results(total: ClusterStatistics, results: Sequence[_BlockResult]) -> None:
    """Add what the host puts together, block by block.

    Raises:
        NotFiniteError: a frame cannot be used.
    """
    for result in results:
        if (row := int(result.first_unusable)) < result.rows:
            raise NotFiniteError(result.first_row + row, result.group, result.part)
        total.squared_distances_K += result.squares_K.numpy()
    if results:
        far_FD, far_ids_F, far_squared_F = (
            np.concatenate([getattr(result, name).numpy() for result in results])
            for name in ("far_FD", "far_ids_F", "far_squared_F")
        )
        total.add_farthest(far_FD, far_ids_F, far_squared_F.astype(np.float64))


def _added_up(sums: Sequence[_DeviceSums], like_KD: np.ndarray) -> np.ndarray:
    """fp64 [K, D]: the sums of all devices. Each is set to zero."""
    added_KD = np.zeros_like(like_KD)
    for bits in sorted({bits for of_device in sums for bits in of_device.sums}):
        whole_KD = np.zeros(like_KD.shape, np.int64)
        for of_device in sums:
            if (on_device_KD := of_device.sums.get(bits)) is not None:
                whole_KD += on_device_KD.cpu().numpy()
                on_device_KD.zero_()
        added_KD += np.ldexp(whole_KD.astype(np.float64), -bits)
    return added_KD


def device_step(engine: Engine, gpus: float) -> DeviceStep:
    """The step of an engine on the first ``gpus`` GPUs of this process, or on a fraction of one; with 0, on
    its CPU.

    Raises:
        ModelError: there are fewer GPUs than ``gpus``, or FAISS sees fewer.
    """
    room = partial(free_bytes, share=min(gpus, 1.0))
    return DeviceStep(engine, engine_devices(engine, math.ceil(gpus)), room=room)

"""Batches that form while the one before is computed.

``serve.batch`` of Ray Serve closes a batch a few milliseconds after its first item, also while another one is
computed: under load, 64 clients got batches of two. Here the next batch is closed when the thread is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from gmp_atl_dist.serving.clips import ClipJob
from gmp_atl_dist.serving.runner import Computed


class Batcher:
    """Computes jobs in one thread, in the order in which they come. It belongs to one event loop.

    Args:
        run: computes a batch; called in the thread.
        max_jobs: most jobs of a batch.
    """

    def __init__(self, run: Callable[[Sequence[ClipJob]], list[Computed]], max_jobs: int) -> None:
        self._run = run
        self._max_jobs = max_jobs
        self._waiting: list[tuple[ClipJob, asyncio.Future[Computed]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def __call__(self, job: ClipJob) -> Computed:
        """The result of a job; an error of its batch is raised for each of its jobs."""
        future: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                taken = self._waiting[: self._max_jobs]
                del self._waiting[: self._max_jobs]
                # Nobody waits for a job whose client has gone.
                batch = [(job, future) for job, future in taken if not future.done()]
                if not batch:
                    continue
                try:
                    results = await loop.run_in_executor(
                        self._thread, self._run, [job for job, _ in batch]
                    )
                except Exception as e:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(e)
                    continue
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)
        finally:
            self._worker = None

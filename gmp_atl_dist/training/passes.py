"""The forward and backward passes of one update, and what is done where one does not fit into the memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from gmp_atl_dist.config import OptimConfig
from gmp_atl_dist.device import free_cached_memory, has_gpu
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.seeding import keyed_seed
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.engine import Engine
from gmp_atl_dist.training.memory import PassTooLargeError, audio_s, halves, is_full, too_large
from gmp_atl_dist.training.meter import Number
from gmp_atl_dist.training.ranks import HostGroup
from gmp_atl_dist.training.recipe import Recipe
from gmp_atl_dist.training.sending import Pass, Update

_log = logging.getLogger(__name__)

Metrics = dict[str, tuple[Number, Number]]


@dataclass(frozen=True)
class PassResult:
    """What a pass has measured. Nothing of it was read from the device.

    ``hits`` are of :attr:`gmp_atl_dist.training.recipe.Losses.hits`.
    """

    batch: Batch
    loss: torch.Tensor
    metrics: Metrics
    hits: tuple[Number, Number] | None


class Passes:
    """Computes updates, in one of two ways.

    ``stop``: gradients are exchanged within the backward pass, as DeepSpeed does. A pass that does not fit
    ends the training. ``halve``: gradients are added up on each rank, then the ranks tell each other whether
    all passes did fit, and only then they are exchanged. Otherwise all ranks take the update again, and the
    rank whose pass did not fit takes two of half the clips. From then on it cuts every pass that is as large.

    Args:
        halve: which of both.
        scale: DeepSpeed takes the mean over ranks and passes; our terms are shares of one sum.
    """

    def __init__(
        self, engine: Engine, recipe: Recipe, group: HostGroup, *, halve: bool, scale: float
    ) -> None:
        self._engine = engine
        self._recipe = recipe
        self._config: OptimConfig = recipe.optim
        self._group = group
        self._halve = halve
        self._scale = scale
        self._too_many_samples: int | None = None
        """With padding, of a pass that did not fit."""

    def compute(
        self, update: Update, counts: Sequence[float], *, meanwhile: Callable[[], None]
    ) -> list[PassResult]:
        """Take ``update``; ``counts`` are the divisors of the loss's terms over all ranks.

        ``meanwhile`` is called when the last pass was given to the device.

        Raises:
            PassTooLargeError: a pass does not fit, and is not to be cut or is a single clip.
        """
        if self._halve:
            return self._compute_locally(update, counts, meanwhile)
        results: list[PassResult] = []
        for i, one in enumerate(update.passes):
            where = f"update {update.step}, pass {i + 1} of {len(update.passes)}"
            try:
                results.append(self._one(update.step, one, (), counts))
            except Exception as e:
                raise self._named(where, one.batch, e) from e
            _send_next(update.passes, i, meanwhile)
            self._step(f"{where}, exchange of gradients and step of the optimiser")
        return results

    def _compute_locally(
        self, update: Update, counts: Sequence[float], meanwhile: Callable[[], None]
    ) -> list[PassResult]:
        parts = [part for one in update.passes for part in self._cut(one, ())]
        results: list[PassResult] = []
        hopeless = ""
        with self._engine.local_gradients():
            while True:
                results, failed = self._try(update.step, parts, counts, meanwhile)
                (failures,) = self._group.sums([0.0 if failed is None else 1.0])
                if not failures:
                    break
                self._engine.forget_gradients()
                results = []
                mine = ""
                if failed is not None:
                    place, error = failed
                    if not self._split(update.step, parts, place):
                        where = f"update {update.step}, pass {place + 1} of {len(parts)}"
                        mine = self._named(where, parts[place][0].batch, error).message
                    del error
                del failed
                if has_gpu():
                    free_cached_memory()
                hopeless = self._group.first_text(mine)
                if hopeless:
                    break
        if hopeless:
            raise PassTooLargeError(hopeless)
        self._step(f"update {update.step}, step of the optimiser")
        return results

    def _try(
        self,
        step: int,
        parts: Sequence[tuple[Pass, tuple[int, ...]]],
        counts: Sequence[float],
        meanwhile: Callable[[], None],
    ) -> tuple[list[PassResult], tuple[int, Exception] | None]:
        """The results, or the place of the pass that does not fit and what a library said."""
        results: list[PassResult] = []
        for i, (one, halving) in enumerate(parts):
            try:
                results.append(self._one(step, one, halving, counts))
            except Exception as e:
                if not is_full(e):
                    raise
                # Its frames hold the tensors of the pass.
                return [], (i, e.with_traceback(None))
            _send_next([p for p, _ in parts], i, meanwhile)
        return results, None

    def _one(
        self, step: int, one: Pass, halving: tuple[int, ...], counts: Sequence[float]
    ) -> PassResult:
        batch, engine, recipe = one.take(), self._engine, self._recipe
        seed = keyed_seed("dropout", self._config.seed, step, batch.micro, *halving)
        torch.manual_seed(seed)
        losses = recipe.losses(engine.forward, batch)
        loss = torch.zeros((), device=engine.device)
        for factor, total, count in zip(recipe.factors, losses.sums, counts, strict=True):
            loss = loss + total * (factor / max(count, 1e-12))
        engine.backward(loss * self._scale)
        detached = loss.detach()
        metrics: Metrics = {**losses.metrics, "loss": (detached, 0.0)}
        return PassResult(one.batch, detached, metrics, losses.hits)

    def _step(self, where: str) -> None:
        try:
            self._engine.step()
        except Exception as e:
            raise self._named(where, None, e) from e

    def _named(self, where: str, batch: Batch | None, error: Exception) -> WorkerError:
        """``error`` itself if it is of another kind, raised here."""
        if not is_full(error):
            raise error
        return too_large(where, batch, self._recipe.name, self._config, error)

    def _cut(self, one: Pass, halving: tuple[int, ...]) -> list[tuple[Pass, tuple[int, ...]]]:
        """``one``, or its parts if a pass of this size did not fit before."""
        limit = self._too_many_samples
        if limit is None or _samples(one.batch) < limit or (cut := halves(one.batch)) is None:
            return [(one, halving)]
        return [
            part for i, half in enumerate(cut) for part in self._cut(one.of(half), (*halving, i))
        ]

    def _split(self, step: int, parts: list[tuple[Pass, tuple[int, ...]]], place: int) -> bool:
        """Cut the pass at ``place``, and all that are as large. False: it is a single clip."""
        batch = parts[place][0].batch
        if len(batch.utterances) < 2:
            return False
        size = _samples(batch)
        self._too_many_samples = min(self._too_many_samples or size, size)
        parts[:] = [part for one, halving in parts for part in self._cut(one, halving)]
        _log.warning(
            "%s: update %d: a pass of %.1f s of audio in %d clips does not fit into the memory of a worker; "
            "passes of this size are cut in two from now on",
            *(self._recipe.name, step, audio_s(batch), len(batch.utterances)),
        )
        return True


def _send_next(passes: Sequence[Pass], done: int, meanwhile: Callable[[], None]) -> None:
    if done + 1 < len(passes):
        passes[done + 1].send()
    else:
        meanwhile()


def _samples(batch: Batch) -> int:
    """With padding."""
    return len(batch.utterances) * int(batch.num_samples_B.max())

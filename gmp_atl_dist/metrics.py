"""Scores of an evaluation and of codebooks, from matrices of counts. numpy alone.

Everything is computed from a joint count matrix whose rows are the truth. Counts of folds and of workers
add up, and a resample of utterances is one draw of such a matrix. The caller fixes the class list, so that
a class without test utterances cannot silently drop out of a mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Bounds = tuple[float, float]

_TINY_SHARE = 0.01
_CELLS_AT_ONCE = 1 << 22
"""Cells of resampled matrices held at once: 32 MiB per array."""


@dataclass(frozen=True, slots=True)
class Scores:
    """All are fractions in [0, 1]; tuples follow the fixed class list.

    ``war`` is accuracy (weighted average recall). ``uar`` is the mean recall over **all** classes of the
    list. A class that never occurs in the truth counts as 0, as in scikit-learn with ``labels=`` given and
    ``zero_division=0``, and ``absent_classes`` names it; ``balanced_accuracy_score`` would leave it out,
    which gives a higher figure.
    """

    war: float
    uar: float
    macro_f1: float
    weighted_f1: float
    recalls: tuple[float, ...]
    support: tuple[int, ...]
    num_utterances: int

    @property
    def absent_classes(self) -> tuple[int, ...]:
        """Indices of the classes without an utterance in the truth."""
        return tuple(i for i, count in enumerate(self.support) if count == 0)

    @property
    def uar_of_present_classes(self) -> float:
        """The other convention: mean recall of the classes with an utterance in the truth."""
        present = [r for r, count in zip(self.recalls, self.support, strict=True) if count]
        return sum(present) / len(present)


@dataclass(frozen=True, slots=True)
class Intervals:
    """Percentile bootstrap intervals (low, high) of WAR and UAR, and how they were drawn."""

    war: Bounds
    uar: Bounds
    confidence: float
    samples: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation (n - 1) over ``n`` folds; None for a single one."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of a codebook's ``k`` labels. ``perplexity`` is between 1 and ``k``.

    ``dead`` labels are not used. ``tiny`` labels have less than a hundredth of the frames that each label
    would have if all were used equally.
    """

    k: int
    used: int
    empty: int
    tiny: int
    perplexity: float
    top_share: float


@dataclass(frozen=True, slots=True)
class ClusterQuality:
    """The agreement of clusters z with classes y, as in HuBERT (arXiv 2106.07447).

    ``purity`` is the accuracy of naming each cluster after its commonest class, ``cluster_purity``
    that of guessing each class's commonest cluster, ``pnmi`` is I(y;z) / H(y), and ``perplexity``
    is exp H(z). Purity grows with the number of clusters; compare it at equal k alone.
    """

    purity: float
    pnmi: float
    cluster_purity: float
    used_clusters: int
    perplexity: float


def confusion_matrix(true: ArrayLike, predicted: ArrayLike, num_classes: int) -> Counts:
    """Counts (num_classes, num_classes): rows the truth, columns the prediction.

    Raises:
        ValueError: lengths differ, or an index is not in 0 .. num_classes - 1.
    """
    return joint_counts(true, predicted, num_classes, num_classes)


def joint_counts(rows: ArrayLike, columns: ArrayLike, num_rows: int, num_columns: int) -> Counts:
    """The counts of each pair of indices: (num_rows, num_columns). Counts of parts add up.

    Raises:
        ValueError: lengths differ, or an index is not in 0 .. its number - 1.
    """
    row_ids = _indices(rows, num_rows, "row")
    column_ids = _indices(columns, num_columns, "column")
    if len(row_ids) != len(column_ids):
        raise ValueError(
            f"{len(row_ids)} row and {len(column_ids)} column indices; give one of each per item"
        )
    cells = row_ids * num_columns + column_ids
    counts = np.bincount(cells, minlength=num_rows * num_columns)
    return counts.reshape(num_rows, num_columns).astype(np.int64)


def scores_from_confusion(confusion: ArrayLike) -> Scores:
    """The scores of a (K, K) matrix of counts, rows the truth.

    Raises:
        ValueError: it is not square, holds a negative count, or counts nothing.
    """
    counts = _counts(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix is square; this one is {counts.shape}")
    hits, support, guessed = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    total = int(support.sum())
    recalls = _ratio(hits, support)
    f1 = _ratio(2 * hits, support + guessed)
    return Scores(
        war=float(hits.sum() / total),
        uar=float(recalls.mean()),
        macro_f1=float(f1.mean()),
        weighted_f1=float(f1 @ support / total),
        recalls=tuple(recalls.tolist()),
        support=tuple(support.tolist()),
        num_utterances=total,
    )


def bootstrap_interval(
    true: ArrayLike,
    predicted: ArrayLike,
    num_classes: int,
    *,
    samples: int,
    confidence: float,
    seed: int,
) -> Intervals:
    """Intervals from resampling single utterances, not stratified; the same for the same seed.

    Drawing n utterances with replacement is one multinomial draw over the cells of the confusion
    matrix, so the order of the utterances does not matter. Utterances of one speaker are not independent:
    with many speakers, :func:`bootstrap_interval_by_group` is more accurate.

    A class that a resample misses has no recall there; its observed recall is used instead. So the class
    list stays fixed, and the mean UAR of the resamples is the observed UAR; a 0 would count chance as
    errors. A class absent from the truth counts 0 in every resample.

    Raises:
        ValueError: as :func:`confusion_matrix`; or there is no utterance, no sample, or
            ``confidence`` is not between 0 and 1.
    """
    counts = _counts(confusion_matrix(true, predicted, num_classes))
    total = int(counts.sum())
    rng = np.random.default_rng(seed)

    def draw(size: int) -> Counts:
        drawn = rng.multinomial(total, counts.ravel() / total, size=size)
        return drawn.reshape(size, *counts.shape)

    return _percentiles(counts, draw, samples, confidence)


def bootstrap_interval_by_group(
    true: ArrayLike,
    predicted: ArrayLike,
    groups: Sequence[str],
    num_classes: int,
    *,
    samples: int,
    confidence: float,
    seed: int,
) -> Intervals:
    """As :func:`bootstrap_interval`, but whole groups (speakers) are resampled; one name per utterance.

    The interval is for a new *speaker*, and therefore wider. With fewer than about ten groups it is
    coarse: two groups have only three distinct resamples.

    Raises:
        ValueError: as there; or names and utterances differ in number, or there is one group only.
    """
    names, members = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    if len(members) != np.size(true):
        raise ValueError(
            f"{len(members)} group names for {np.size(true)} utterances; give one each"
        )
    if len(names) < 2:
        raise ValueError(f"resampling groups needs two or more; found {names.tolist()}")
    counts = _counts(confusion_matrix(true, predicted, num_classes))
    cells = _indices(true, num_classes, "row") * num_classes + np.asarray(predicted)
    by_group = joint_counts(members, cells, len(names), num_classes**2)
    rng = np.random.default_rng(seed)

    def draw(size: int) -> Counts:
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        return (times @ by_group).reshape(size, *counts.shape)

    return _percentiles(counts, draw, samples, confidence)


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("the spread of no value is not defined; give one value per fold")
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), std=std, n=len(values))


def label_usage(histogram: ArrayLike) -> Usage:
    """The use of one codebook's labels; ``histogram`` (k,) counts frames.

    Raises:
        ValueError: it is not one-dimensional, holds a negative count, or counts nothing.
    """
    counts = _counts(histogram)
    if counts.ndim != 1:
        raise ValueError(f"a histogram of labels has one axis; this one is {counts.shape}")
    used = int(np.count_nonzero(counts))
    share = counts / counts.sum()
    return Usage(
        k=len(counts),
        used=used,
        empty=len(counts) - used,
        tiny=int(np.count_nonzero((counts > 0) & (share < _TINY_SHARE / len(counts)))),
        perplexity=float(np.exp(_entropy(share))),
        top_share=float(share.max()),
    )


def cluster_quality_from_joint(joint: ArrayLike) -> ClusterQuality:
    """Quality from counts (classes, clusters), e.g. summed over workers.

    ``pnmi`` is 0 if only one class occurs, because H(y) is 0.

    Raises:
        ValueError: it does not have two axes, holds a negative count, or counts nothing.
    """
    counts = _counts(joint)
    if counts.ndim != 2:
        raise ValueError(f"joint counts have two axes, classes and clusters; found {counts.shape}")
    shares = counts / counts.sum()
    classes, clusters = shares.sum(axis=1), shares.sum(axis=0)
    class_nats, cluster_nats = _entropy(classes), _entropy(clusters)
    mutual_nats = max(0.0, class_nats + cluster_nats - _entropy(shares))
    return ClusterQuality(
        purity=float(shares.max(axis=0).sum()),
        pnmi=min(1.0, mutual_nats / class_nats) if np.count_nonzero(classes) > 1 else 0.0,
        cluster_purity=float(shares.max(axis=1).sum()),
        used_clusters=int(np.count_nonzero(clusters)),
        perplexity=float(np.exp(cluster_nats)),
    )


def _percentiles(
    observed: Counts, draw: Callable[[int], Counts], samples: int, confidence: float
) -> Intervals:
    """Intervals over ``samples`` matrices; ``draw(size)`` gives the next (size, K, K)."""
    if samples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"samples = {samples}, confidence = {confidence}: give one sample or more and a "
            f"confidence between 0 and 1"
        )
    stand_in = _ratio(observed.diagonal(), observed.sum(axis=1))
    war, uar = np.empty(samples), np.empty(samples)
    at_once = max(1, _CELLS_AT_ONCE // observed.size)
    for start in range(0, samples, at_once):
        part = slice(start, min(start + at_once, samples))
        drawn = draw(part.stop - part.start)
        hits, support = drawn.diagonal(axis1=1, axis2=2), drawn.sum(axis=2)
        war[part] = hits.sum(axis=1) / support.sum(axis=1)
        recalls = np.where(support > 0, _ratio(hits, support), stand_in)
        uar[part] = recalls.mean(axis=1)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    war_low, war_high = np.quantile(war, tails).tolist()
    uar_low, uar_high = np.quantile(uar, tails).tolist()
    return Intervals((war_low, war_high), (uar_low, uar_high), confidence, samples)


def _indices(values: ArrayLike, bound: int, name: str) -> Counts:
    ids = np.asarray(values)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise ValueError(f"{name} indices are a list of integers; found {ids.dtype} {ids.shape}")
    ids = ids.astype(np.int64)
    wrong = np.unique(ids[(ids < 0) | (ids >= bound)])
    if wrong.size:
        raise ValueError(f"{name} indices {wrong[:10].tolist()} are not in 0 .. {bound - 1}")
    return ids


def _counts(values: ArrayLike) -> Counts:
    counts = np.asarray(values)
    if counts.size == 0 or not np.issubdtype(counts.dtype, np.integer):
        raise ValueError(f"counts are integers; found {counts.dtype} {counts.shape}")
    if counts.min() < 0 or not counts.any():
        raise ValueError("counts are 0 or more and not all 0; count at least one item")
    return counts.astype(np.int64)


def _ratio(part: Counts, whole: Counts) -> Floats:
    """``part / whole``, and 0 where ``whole`` is 0."""
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)


def _entropy(shares: Floats) -> float:
    """In nats; an empty cell adds nothing."""
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())

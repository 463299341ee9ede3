"""The audio audit: how the recordings of a corpus sound, and which of them are unlike the others.

It is a part of ``report.json``, and what ``gmp-atl corpora check --audio`` prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gmp_atl_dist.audio_measures import (
    BANDWIDTH,
    CHANNELS,
    CLIPPED,
    DC,
    LEVEL,
    RATE,
    SECONDS,
    ZERO,
    AudioTable,
)
from gmp_atl_dist.config import AuditConfig
from gmp_atl_dist.report.codebook_content import Count
from gmp_atl_dist.report.protocol import Content

_SHOWN = 20
_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_TITLES = {
    SECONDS: ("Length", "s", 1.0),
    LEVEL: ("Level", "dBFS", 1.0),
    CLIPPED: ("Samples at full scale", "%", 100.0),
    ZERO: ("Samples that are 0", "%", 100.0),
    DC: ("Constant offset", "% of full scale", 100.0),
    BANDWIDTH: ("Bandwidth", "Hz", 1.0),
}


class MeasureContent(Content):
    """The distribution of one measure: lowest, 5 %, median, 95 % and highest value, in ``unit``."""

    title: str
    unit: str
    quantiles: tuple[float, float, float, float, float]
    lowest_id: str
    highest_id: str


class FindingContent(Content):
    """Utterances beyond one limit: how many, and the values of the worst ones in ``unit``, worst first."""

    code: str
    meaning: str
    count: Count
    shown: tuple[tuple[str, float], ...]
    unit: str = ""


class GroupAudio(Content):
    """The medians of the utterances of one emotion."""

    name: str
    count: Count
    seconds: float
    level_dbfs: float
    bandwidth_hz: float
    share_with_findings: float


class AudioContent(Content):
    """The audio audit of a corpus. Nothing was left out because of it."""

    num_utterances: Count
    rates_hz: dict[str, Count]
    channels: dict[str, Count]
    measures: tuple[MeasureContent, ...]
    findings: tuple[FindingContent, ...] = ()
    emotions: tuple[GroupAudio, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()
    """Ids of utterances with the same samples; the first ones."""
    num_copies: Count = 0


def audit_of(
    table: AudioTable,
    emotion_of: Mapping[str, str],
    config: AuditConfig,
    copies: Sequence[tuple[str, ...]] = (),
) -> AudioContent:
    """The audit of measured utterances.

    Args:
        table: at least one utterance.
        emotion_of: the emotion of each id.
        config: the limits.
        copies: groups of ids with the same samples.
    """
    columns = table.columns
    found = np.zeros(len(table.ids), bool)
    findings: list[FindingContent] = []
    for code, meaning, values, beyond, order in _limits(columns, config):
        found |= beyond
        if not beyond.any():
            continue
        rows = np.flatnonzero(beyond)
        # Stable, so equal values are in the order of ids.
        worst = rows[np.argsort(order[rows], kind="stable")[:_SHOWN]]
        shown = tuple((table.ids[i], float(values[i])) for i in worst)
        findings.append(
            FindingContent(
                code=code,
                meaning=meaning,
                count=int(beyond.sum()),
                shown=shown,
                unit=_UNITS[code],
            )
        )
    return AudioContent(
        num_utterances=len(table.ids),
        rates_hz=_counts(columns[RATE]),
        channels=_counts(columns[CHANNELS]),
        measures=tuple(_measure(table, name) for name in _TITLES),
        findings=tuple(findings),
        emotions=tuple(_emotions(table, emotion_of, found)),
        copies=tuple(copies[:_SHOWN]),
        num_copies=len(copies),
    )


_UNITS = {
    "quiet": "dBFS",
    "level": "dBFS",
    "clipped": "%",
    "partly_silent": "%",
    "offset": "%",
    "narrow_band": "Hz",
}
"""Of the shown values, by code."""

_Array = npt.NDArray[np.float64]
_Limit = tuple[str, str, _Array, npt.NDArray[np.bool_], _Array]


def _limits(columns: Mapping[str, _Array], config: AuditConfig) -> Iterator[_Limit]:
    """(code, meaning, shown values, which are beyond the limit, what sorts the worst first)."""
    level, bandwidth = columns[LEVEL], columns[BANDWIDTH]
    quiet = f"level below {config.quiet_dbfs:g} dBFS"
    yield "quiet", quiet, level, level < config.quiet_dbfs, level
    median = round(float(np.median(level)), 2)
    distance = np.abs(level - median)
    yield (
        "level",
        f"level more than {config.level_spread_db:g} dB from the median, {median:g} dBFS",
        level,
        distance > config.level_spread_db,
        -distance,
    )
    for code, name, limit, what in (
        ("clipped", CLIPPED, config.clipped_share, "of the samples are at full scale"),
        ("partly_silent", ZERO, config.zero_share, "of the samples are exactly 0"),
        ("offset", DC, config.dc_share, "of full scale is a constant offset"),
    ):
        values = columns[name]
        yield code, f"more than {100 * limit:g} % {what}", 100 * values, values > limit, -values
    narrow = f"no sound above {config.narrow_hz:g} Hz, as in audio of 8 kHz"
    yield "narrow_band", narrow, bandwidth, bandwidth < config.narrow_hz, bandwidth


def _measure(table: AudioTable, name: str) -> MeasureContent:
    title, unit, factor = _TITLES[name]
    values = table.columns[name]
    # Values that occur, not values between two of them.
    low, low5, middle, high5, high = np.quantile(values, _QUANTILES, method="lower").tolist()
    return MeasureContent(
        title=title,
        unit=unit,
        quantiles=tuple(factor * v for v in (low, low5, middle, high5, high)),
        lowest_id=table.ids[int(values.argmin())],
        highest_id=table.ids[int(values.argmax())],
    )


def _counts(values: _Array) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return {f"{value:g}": n for value, n in Counter(values.tolist()).most_common()}


def _emotions(
    table: AudioTable, emotion_of: Mapping[str, str], found: npt.NDArray[np.bool_]
) -> Iterator[GroupAudio]:
    """A model can learn the microphone instead of the emotion, where the two go together."""
    names = [emotion_of[name] for name in table.ids]
    columns = table.columns
    for emotion in sorted(set(names)):
        rows = [i for i, name in enumerate(names) if name == emotion]
        seconds, level, bandwidth = (
            round(float(np.median(columns[name][rows])), 3) for name in (SECONDS, LEVEL, BANDWIDTH)
        )
        yield GroupAudio(
            name=emotion,
            count=len(rows),
            seconds=seconds,
            level_dbfs=level,
            bandwidth_hz=bandwidth,
            share_with_findings=round(float(found[rows].mean()), 6),
        )

"""Charts of scores: reliability of the probabilities, and accuracy of each test speaker."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from gmp_atl_dist.records import GENDERS
from gmp_atl_dist.report.calibration import Calibration, CalibrationBin
from gmp_atl_dist.report.charts import DASHES, XY, Axis, Chart, linear_axis, symbol
from gmp_atl_dist.report.curves import Panel
from gmp_atl_dist.report.groups import GroupContent

MOST_SPEAKERS = 60
"""Of the picture and of the table; the page shows those with the lowest UAR."""
_WIDTH, _MASS = 0, 1
"""Colours and shapes of bins of equal width and of equal mass."""
_OTHER = len(GENDERS)


def reliability_panel(calibration: Calibration) -> Panel:
    """Accuracy over mean probability in each bin. On the dotted line, probabilities could be believed."""
    share = linear_axis(0, 1, _percent)
    chart = Chart(
        # Both zeros would lie on each other in the corner.
        share._replace(ticks=share.ticks[1:], labels=share.labels[1:]),
        share,
        "mean probability of the predicted class",
        "accuracy",
        "reliability of the probabilities",
    )
    chart.line([(0, 0), (1, 1)], "chance")
    for number, bins in ((_WIDTH, calibration.bins), (_MASS, calibration.equal_mass_bins)):
        points = _points(bins)
        if len(points) > 1:
            chart.line(points, f"line l{number}", DASHES[number])
        chart.group(f"point f{number}")
        for point in points:
            chart.point(point, 3.2, number)
        chart.end_group()
    return Panel("Reliability", chart.svg(), "")


def _points(bins: Sequence[CalibrationBin]) -> list[XY]:
    return [
        (found.confidence, found.accuracy)
        for found in bins
        if found.accuracy is not None and found.confidence is not None
    ]


def speakers_panel(speakers: Sequence[GroupContent], overall: float) -> Panel | None:
    """Accuracy of each speaker with its interval, in the order of the table; the level is that of all.

    None for fewer than two speakers, or a report of release 0.4 or before, which has no such intervals.
    """
    shown = speakers[:MOST_SPEAKERS]
    if len(shown) < 2 or any(speaker.war_interval is None for speaker in shown):
        return None
    step = -(-len(shown) // 5)
    ticks = tuple(range(step, len(shown) + 1, step))
    chart = Chart(
        Axis(0.0, len(shown) + 1.0, tuple(map(float, ticks)), tuple(map(str, ticks))),
        linear_axis(0, 1, _percent),
        "row of the table below",
        "accuracy",
        "accuracy of each test speaker",
    )
    for row, speaker in enumerate(shown, 1):
        assert speaker.war_interval is not None
        kind = GENDERS.index(speaker.gender) if speaker.gender in GENDERS else _OTHER
        low, high = speaker.war_interval
        chart.line([(row, low), (row, high)], f"line l{kind}")
        chart.group(f"point f{kind}")
        chart.point((row, speaker.war), 3.0, kind)
        chart.end_group()
    chart.level(overall, "all")
    return Panel("Accuracy of each speaker", chart.svg(), "")


def kinds_of(speakers: Sequence[GroupContent]) -> list[tuple[str, Markup]]:
    """The genders of the picture, each with its symbol."""
    genders = {speaker.gender for speaker in speakers[:MOST_SPEAKERS]}
    named = [(name, i) for i, name in enumerate(GENDERS) if name in genders]
    if genders - set(GENDERS):
        named.append(("gender unknown", _OTHER))
    return [
        (
            name,
            Markup(
                f'<svg class="swatch" viewBox="0 0 12 12" aria-hidden="true"><g class="f{kind} l{kind}">'
                f"{symbol(6, 6, 4, kind)}</g></svg>"
            ),
        )
        for name, kind in named
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"

"""Charts, colours and images by themselves."""

from __future__ import annotations

import base64
import io
import itertools
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

from gmp_atl_dist.report import palette
from gmp_atl_dist.report.charts import Chart, linear_axis, log_axis
from gmp_atl_dist.report.curves import smooth, thin
from gmp_atl_dist.report.images import png, strip_uri
from gmp_atl_dist.report.pictures import TimePicture
from gmp_atl_dist.report.spectrogram import Spectrogram

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip
TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)  # fmt: skip
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)  # fmt: skip


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    return TO_LAB @ np.cbrt(TO_LMS @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    ("colours", "paper"), [(palette.LIGHT, "#ffffff"), (palette.DARK, "#0d1117")]
)
def test_twelve_colours_are_distinguishable(colours: tuple[str, ...], paper: str, sight: str):
    seen = [oklab(SIGHT[sight] @ linear(colour)) for colour in (paper, *colours)]
    distances = {
        (i, j): float(np.linalg.norm(seen[i] - seen[j]))
        for i, j in itertools.combinations(range(len(seen)), 2)
    }
    # 0.02 is about a just noticeable difference of OKLab.
    assert min(distances.values()) > 0.08
    assert min(d for (i, j), d in distances.items() if j <= 8) > 0.12


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (3.2, 3.9), (0, 0.0004), (0, 2e7), (5, 5), (-3, -1)]
)
def test_ticks_are_round_distinct_and_inside(low: float, high: float):
    axis = linear_axis(low, high)

    assert 2 <= len(axis.ticks) <= 7
    assert len(set(axis.labels)) == len(axis.labels)
    assert all(-1e-9 <= axis.share(tick) <= 1 + 1e-9 for tick in axis.ticks)
    assert max(map(len, axis.labels)) <= 7, axis.labels


@pytest.mark.parametrize(("low", "high"), [(0.004, 0.05), (1e-6, 1), (0.01, 0.02), (1, 1)])
def test_logarithmic_ticks_lie_inside(low: float, high: float):
    axis = log_axis(low, high, "{:g}".format)

    assert len(axis.ticks) >= 2
    assert all(-1e-9 <= axis.share(tick) <= 1 + 1e-9 for tick in axis.ticks)


def test_relative_paths_end_where_the_line_ends():
    chart = Chart(linear_axis(0, 10), linear_axis(0, 1), "x", "y", "label <b>")
    rng = np.random.default_rng(0)
    chart.line([(x, y) for x, y in zip(range(11), rng.random(11).tolist(), strict=True)], "line l0")
    chart.line([(10, 1)], "line l0")
    svg = ElementTree.fromstring(chart.svg())
    path = next(p.get("d", "") for p in svg.iter("path") if "line" in p.get("class", ""))
    steps = path.split("l")[1].replace("-", " -").split()
    at = float(path[1:].split("l")[0].split()[0]) + sum(map(float, steps[::2]))

    dot = next(svg.iter("circle"))
    assert at == pytest.approx(float(dot.get("cx", "0")), abs=0.11)


def test_smoothing_keeps_constants_length_and_steep_beginnings():
    assert smooth(np.full(500, 3.0)) == pytest.approx(np.full(500, 3.0))
    falling = np.linspace(9.0, 1.0, 400)
    assert smooth(falling)[0] == 9.0
    noisy = falling + np.random.default_rng(1).normal(0, 1, 400)
    assert np.abs(smooth(noisy) - falling)[5:].mean() < np.abs(noisy - falling)[5:].mean() / 2
    assert smooth(np.arange(5.0)).tolist() == [0, 1, 2, 3, 4]


def test_long_curves_are_averaged_in_stretches():
    line = thin(np.array([(step, float(step % 2)) for step in range(20_000)]), 400)

    assert line.shape == (400, 2)
    assert line[:, 1] == pytest.approx(np.full(400, 0.5))
    assert np.all(np.diff(line[:, 0]) > 0)


def test_images_decode_to_their_pixels():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    decoded = matplotlib.image.imread(io.BytesIO(png(pixels)))
    assert np.round(decoded * 255).astype(int).tolist() == pixels.tolist()

    strip = base64.b64decode(strip_uri([0, 1, 0, 480]).partition(",")[2])
    colours = matplotlib.image.imread(io.BytesIO(strip))[0]
    assert colours[0].tolist() == colours[2].tolist() != colours[1].tolist()


def test_a_spectrogram_shows_where_the_tone_is():
    at = np.arange(16_000) / 16_000
    tone = np.where(at < 0.5, np.sin(2 * np.pi * 300 * at), np.sin(2 * np.pi * 5000 * at))
    levels = Spectrogram.of((8000 * tone).astype(np.int16), 50).array

    assert levels.shape == (40, 50)
    assert levels[:, 5:20].argmax(axis=0).max() < 10
    assert levels[:, 30:45].argmax(axis=0).min() > 25
    assert not Spectrogram.of(np.zeros(4000, np.int16), 50).array.any()
    assert Spectrogram.of(np.zeros(1, np.int16), 50).frames == 1


def test_a_time_axis_has_round_ticks():
    picture = TimePicture.of(Spectrogram.of(np.ones(48_000, np.int16), 150), ())

    assert picture is not None
    assert [text for _, text in picture.ticks] == ["0", "0.5", "1", "1.5", "2", "2.5", "3"]
    assert picture.ticks[-1][0] == 100

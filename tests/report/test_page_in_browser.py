"""The page in a real browser: wide and narrow, light and dark, printed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from playwright.sync_api import Browser
from support.browser import chromium
from support.page_checks import CLIPPED, LOW_CONTRAST, OVERFLOWING, OVERLAPPING, opened
from support.report_case import HOSTILE, MANY_CLASSES, build, record

from gmp_atl_dist.report.html import render_html

WIDTHS = (1280, 400)
SCHEMES = ("light", "dark")
A4_PRINTABLE_PX = 688
"""182 mm at 96 pixels per inch."""

LINES_AND_PAPER = """svg => {
    const shown = [...svg.querySelectorAll('path.line')].map(p => getComputedStyle(p).stroke)
    return [shown, getComputedStyle(document.body).backgroundColor]
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight classes in five scripts, three folds."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_html(build(num_folds=3, classes=MANY_CLASSES)))
    return path


@pytest.fixture(scope="module")
def with_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sound = io.BytesIO()
    sf.write(sound, np.zeros(16_000), 16_000, format="FLAC")
    path = tmp_path_factory.mktemp("run") / "report.html"
    path.write_text(render_html(build(), record(), clips={HOSTILE: sound.getvalue()}))
    return path


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_and_every_text_can_be_read(
    browser: Browser, sealed: Path, with_run: Path, width: int
):
    for path in (sealed, with_run):
        for scheme in SCHEMES:
            tab = opened(browser, path, width, scheme)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate(OVERFLOWING) == []
            assert tab.evaluate(CLIPPED) == []
            assert tab.evaluate(OVERLAPPING) == []
            assert tab.evaluate(LOW_CONTRAST) == []
            broken = "[...document.images].filter(i => !i.naturalWidth).length"
            assert tab.evaluate(broken) == 0
            tab.context.close()


CUES = """() => [...document.querySelectorAll('.wide')].map(e => {
    const cue = () => +getComputedStyle(e, '::after').opacity
    const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
    return (async () => {
        await frame()
        const before = cue()
        e.scrollLeft = 1e6
        await frame()
        return [e.scrollWidth > e.clientWidth, before, cue()]
    })()
})"""
"""Whether a table is wider than its box, and the cue at the right edge at first and at the end."""


def test_a_table_that_goes_on_beyond_the_edge_has_a_cue(browser: Browser, sealed: Path):
    for width in WIDTHS:
        tab = opened(browser, sealed, width)
        cues = tab.evaluate(f"async () => Promise.all(({CUES})())")
        tab.context.close()
        assert [wide for wide, _, _ in cues].count(True) >= (3 if width == 400 else 0)
        for wide, before, end in cues:
            assert (before, end) == ((1, 0) if wide else (0, 0))


def test_charts_follow_the_dark_mode(browser: Browser, sealed: Path):
    seen = []
    for scheme in SCHEMES:
        tab = opened(browser, sealed, 1280, scheme)
        seen.append(tab.locator("#curves svg.chart").first.evaluate(LINES_AND_PAPER))
        tab.context.close()
    (lines, paper), (dark_lines, dark_paper) = seen

    assert len(set(lines)) == 3
    assert len(set(dark_lines)) == 3
    assert not set(lines) & set(dark_lines)
    assert paper == "rgb(255, 255, 255)"
    assert dark_paper != paper


def test_eight_classes_have_eight_colours(browser: Browser, sealed: Path):
    tab = opened(browser, sealed, 1280)
    colours = tab.locator(".swatch.colour").evaluate_all(
        "all => all.map(e => getComputedStyle(e).backgroundColor)"
    )
    tab.context.close()

    assert len(colours) == len(set(colours)) == 8


def test_links_of_the_contents_lead_to_sections(browser: Browser, sealed: Path):
    tab = opened(browser, sealed, 400)
    tab.locator("nav.contents a", has_text="Codebooks").click()
    top = tab.locator("#codebooks").evaluate("e => e.getBoundingClientRect().top")
    tab.context.close()

    assert abs(top) < 60


def test_files_can_be_downloaded_without_a_script(browser: Browser, sealed: Path, tmp_path: Path):
    tab = opened(browser, sealed, 1280)
    found: dict[str, bytes] = {}
    for link in tab.locator(".downloads a").all():
        with tab.expect_download() as waiting:
            link.click()
        target = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(target)
        found[target.name] = target.read_bytes()
    tab.context.close()

    assert list(found) == ["scores.csv", "scores.tex", "confusion.png", "predictions.csv"]
    assert found["confusion.png"].startswith(b"\x89PNG")
    predictions = found["predictions.csv"].decode().splitlines()
    assert len(predictions) == 1 + 1085 + 1023 + 1151
    assert predictions[0].endswith(",".join(f"p_{name}" for name in MANY_CLASSES))
    scores = found["scores.csv"].decode().splitlines()
    assert [line.split(",")[0] for line in scores].count("speaker") == 2 * 6
    assert r"95 percent" in found["scores.tex"].decode()


def test_audio_plays_from_the_page(browser: Browser, with_run: Path):
    tab = opened(browser, with_run, 400)
    seconds = tab.locator("audio").evaluate(
        "a => new Promise(done => { a.onloadedmetadata = () => done(a.duration);"
        " a.onerror = () => done(a.error.message); a.load() })"
    )
    tab.context.close()

    assert seconds == pytest.approx(1.0, abs=0.05)


def test_the_printed_page_is_light_and_fits_the_paper(browser: Browser, sealed: Path):
    tab = opened(browser, sealed, A4_PRINTABLE_PX, "dark")
    tab.emulate_media(media="print", color_scheme="dark")

    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    assert tab.evaluate(OVERFLOWING.replace(".wide, svg", "svg")) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= A4_PRINTABLE_PX
    assert tab.evaluate(CLIPPED) == []
    assert tab.locator("nav.contents").is_hidden()
    assert tab.pdf(format="A4").startswith(b"%PDF")
    tab.context.close()


def test_the_page_is_small(sealed: Path, with_run: Path):
    for path in (sealed, with_run):
        assert path.stat().st_size < 2_000_000

"""The page of a sweep in a real browser: wide and narrow, light and dark, printed, other scripts."""

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
from support.sweep_case import arms

from gmp_atl_dist.report.sweep_building import sweep_content
from gmp_atl_dist.report.sweep_content import SweepContent
from gmp_atl_dist.report.sweep_html import render_sweep_html
from gmp_atl_dist.report.sweep_input import MissingCell
from gmp_atl_dist.statistics.bootstrap import Resampling

A4_PRINTABLE_PX = 688


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def content() -> SweepContent:
    missing = [MissingCell("ptapt", "3", "2", "OSError: disk full")]
    return sweep_content(
        "Zażółć",
        arms(seeds=(0, 1), per_speaker=12),
        corpus_name="王小明 Ελένη أحمد",
        missing=missing,
        how=Resampling(samples=200),
    )


@pytest.fixture(scope="module")
def page(content: SweepContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "sweep.html"
    path.write_text(render_sweep_html(content))
    return path


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_is_cut_and_every_text_can_be_read(browser: Browser, page: Path, width: int):
    for scheme in ("light", "dark"):
        tab = opened(browser, page, width, scheme)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(OVERFLOWING) == []
        assert tab.evaluate(CLIPPED) == []
        assert tab.evaluate(OVERLAPPING) == []
        assert tab.evaluate(LOW_CONTRAST) == []
        assert tab.evaluate("[...document.images].filter(i => !i.naturalWidth).length") == 0
        tab.context.close()


def test_audio_plays_from_the_page_if_it_is_given(
    browser: Browser, content: SweepContent, tmp_path: Path
):
    flac = io.BytesIO()
    sf.write(flac, np.zeros(8000, "int16"), 16000, format="FLAC", subtype="PCM_16")
    path = tmp_path / "sweep.html"
    for clips, number in (({}, 0), ({content.errors[0].utterance_id: flac.getvalue()}, 1)):
        path.write_text(render_sweep_html(content, clips=clips))
        tab = opened(browser, path, 400)
        assert tab.locator("audio").count() == number
        told = "Audio is not included; runtime.report_audio = true" in tab.inner_text("#errors")
        assert told == (number == 0)
        if number:
            seconds = tab.locator("#errors audio").evaluate(
                "a => new Promise(done => { a.onended = () => done(a.currentTime);"
                " a.onerror = () => done(a.error.message); a.muted = true; a.play() })"
            )
            assert seconds == pytest.approx(0.5, abs=0.05)
        tab.context.close()


def test_intervals_and_marks_follow_the_dark_mode(browser: Browser, page: Path):
    seen = []
    for scheme in ("light", "dark"):
        tab = opened(browser, page, 1400, scheme)
        seen.append(
            tab.evaluate(
                "[getComputedStyle(document.querySelector('svg .interval')).stroke,"
                " getComputedStyle(document.querySelector('svg .mark > *')).fill,"
                " getComputedStyle(document.body).backgroundColor]"
            )
        )
        tab.context.close()

    assert all(light != dark for light, dark in zip(*seen, strict=True))


def test_the_printed_page_fits_the_paper(browser: Browser, page: Path):
    tab = opened(browser, page, A4_PRINTABLE_PX, "dark")
    tab.emulate_media(media="print", color_scheme="dark")

    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    assert tab.evaluate("document.documentElement.scrollWidth") <= A4_PRINTABLE_PX
    assert tab.evaluate(CLIPPED) == []
    assert tab.pdf(format="A4").startswith(b"%PDF")
    tab.context.close()


def test_each_table_can_be_taken_away(browser: Browser, page: Path, tmp_path: Path):
    tab = opened(browser, page, 1400)
    names = []
    for link in tab.locator("#downloads tr:first-child a").all():
        with tab.expect_download() as waiting:
            link.click()
        target = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(target)
        names.append(target.name)
    number = tab.locator("#downloads a").count()
    tab.context.close()

    assert names == ["arms.csv", "arms.tex", "arms.md"]
    assert r"mean\_pooling (среднее вместо внимания)" in (tmp_path / "arms.tex").read_text()
    assert number >= 3 * 10

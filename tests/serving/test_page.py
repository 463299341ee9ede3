"""The page of ``gmp-atl serve`` in a real browser, with a real model and a real HTTP server without Ray."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile as sf
from playwright.sync_api import Page, expect
from support.browser import chromium
from support.model_service import OneProcess, http_server
from support.small_models import EMOTIONS, write_classifier

from gmp_atl_dist.serving.app import build_app
from gmp_atl_dist.serving.limits import Limits
from gmp_atl_dist.serving.runner import ModelRunner

RATE = 16_000


def wav(wave: np.ndarray, rate: int = RATE) -> bytes:
    out = io.BytesIO()
    sf.write(out, wave, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.3 * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 180 / rate)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = write_classifier(tmp_path_factory.mktemp("page") / "model")
    service = OneProcess(ModelRunner(str(folder), "tiny", "cpu", threads=1))
    with http_server(build_app(service, Limits(), None)) as url:
        yield url


@pytest.fixture(scope="module")
def page(url: str) -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page()


def choose(page: Page, name: str, data: bytes) -> None:
    page.locator("#file").set_input_files([{"name": name, "mimeType": "audio/wav", "buffer": data}])


def test_the_page_warns_and_shows_no_result_of_an_earlier_file(page: Page, url: str) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)

    choose(page, "fine.wav", wav(tone(1.9)))
    expect(page.locator("#name")).to_have_text("fine.wav")
    expect(page.locator("#warning")).to_be_hidden()
    assert page.locator("#emotion").inner_text() in EMOTIONS
    assert "chance" not in page.locator("#result").inner_text()
    assert page.locator("#ticks span").all_inner_texts() == ["0.0 s", "0.5 s", "1.0 s", "1.5 s"]
    places = page.evaluate(
        "[...document.querySelectorAll('#ticks span')].map((s) => parseFloat(s.style.left))"
    )
    assert places == pytest.approx([0, 50 / 1.9, 100 / 1.9, 150 / 1.9], abs=0.01)

    choose(page, "silence.wav", wav(np.zeros(2 * RATE)))
    expect(page.locator("#status")).to_contain_text("holds only digital silence")
    expect(page.locator("#result")).to_be_hidden()

    choose(page, "telephone.wav", wav(tone(1.9, 8_000), 8_000))
    expect(page.locator("#name")).to_have_text("telephone.wav")
    expect(page.locator("#warning")).to_contain_text("sample rate below 16000 Hz")
    expect(page.locator("#emotion")).to_be_visible()

    choose(page, "notes.txt", b"no audio")
    expect(page.locator("#status")).to_contain_text("no recording that libsndfile reads")
    expect(page.locator("#result")).to_be_hidden()
    assert complaints == []


def test_the_description_shows_codes(page: Page, url: str) -> None:
    page.goto(f"{url}/docs")
    row = page.locator("#endpoints tr", has_text="413")
    expect(row.locator("code")).to_have_text(["too_large", "too_long", "too_many_samples"])
    expect(page.locator("#description")).to_contain_text("wrong_method")

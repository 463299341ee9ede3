"""``gmp-atl serve`` on a real Ray: load, a killed replica, a real browser, and how it ends."""

from __future__ import annotations

import base64
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
import soundfile as sf
from playwright.sync_api import Page, expect
from support.browser import chromium
from support.served import Served, ready_server, started
from support.small_models import EMOTIONS, write_classifier

from gmp_atl_dist.predict import Predictor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RATE = 48_000
TOKEN = "token-of-the-served-tests-0123"
CLIENTS = 200
QUEUE = 150
MIB = 1 << 20
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def speechlike(seconds: float, seed: int = 0) -> np.ndarray:
    """A gliding tone with pauses, so that a waveform has a shape: fp32 (N,)."""
    t = np.arange(round(seconds * RATE)) / RATE
    loud = 0.5 * (1 + np.sin(2 * np.pi * 1.3 * t + seed)) ** 2 / 2
    return (0.6 * loud * np.sin(2 * np.pi * (150 + 20 * seed + 30 * np.sin(t)) * t)).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def recording(folder: Path) -> Path:
    sf.write(folder / "speech.wav", speechlike(6.0), RATE, subtype="PCM_16")
    return folder / "speech.wav"


@pytest.fixture(scope="module")
def short(folder: Path) -> bytes:
    """What each of a crowd sends: four hundred are computed on the cores of a test."""
    sf.write(folder / "short.wav", speechlike(2.0), RATE, subtype="PCM_16")
    return (folder / "short.wav").read_bytes()


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return write_classifier(folder / "small-model")


@pytest.fixture(scope="module")
def server(folder: Path, model: Path) -> Iterator[Served]:
    (folder / "token").write_text(TOKEN + "\n")
    arguments = (str(model), "--token-file", str(folder / "token"), "--queue", str(QUEUE))
    with ready_server(*arguments) as served:
        yield served


def ask(server: Served, data: bytes, query: str = "") -> httpx.Response:
    return httpx.post(f"{server.url}/v1/predict{query}", content=data, headers=HEADERS, timeout=300)


def crowd(server: Served, data: bytes) -> tuple[list[httpx.Response], int]:
    """Answers to requests that are all sent at once, and the most memory of the server meanwhile."""
    together = threading.Barrier(CLIENTS)
    over = threading.Event()
    most = [server.memory_bytes()]

    def watch() -> None:
        while not over.wait(0.5):
            most.append(server.memory_bytes())

    def one(_: int) -> httpx.Response:
        together.wait(120)
        return ask(server, data)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return list(pool.map(one, range(CLIENTS))), max(most)
    finally:
        over.set()
        watcher.join()


def test_an_answer_is_what_predict_says(server: Served, model: Path, recording: Path) -> None:
    (expected,) = Predictor(model).predict([recording])
    answer = ask(server, recording.read_bytes()).json()
    assert answer["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert answer["model"] == "small-model"
    assert httpx.post(f"{server.url}/v1/predict", content=b"x").status_code == 401
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}


def test_no_request_of_a_crowd_is_lost_and_memory_is_bounded(server: Served, short: bytes) -> None:
    expected = ask(server, short).json()["probabilities"]
    before = server.memory_bytes()
    first, _ = crowd(server, short)
    second, most = crowd(server, short)

    for answers in (first, second):
        assert len(answers) == CLIENTS
        answered = [a for a in answers if a.status_code == 200]
        refused = [a for a in answers if a.status_code == 503]
        assert len(answered) + len(refused) == CLIENTS, {a.status_code for a in answers}
        assert len(answered) >= QUEUE // 2
        for answer in answered:
            assert answer.json()["probabilities"] == pytest.approx(expected, abs=1e-5)
        for answer in refused:
            assert answer.json()["error"]["code"] == "overloaded"
            assert 1 <= int(answer.headers["retry-after"]) <= 30
    uploads = CLIENTS * len(short)
    print(
        f"before {before / MIB:.0f} MiB, most {most / MIB:.0f} MiB, uploads {uploads / MIB:.0f} MiB"
    )
    assert most - before < uploads + 600 * MIB
    metrics = httpx.get(f"{server.url}/metrics", headers=HEADERS).text
    assert "gmp_atl_serve_in_flight 0" in metrics
    clips, jobs = (
        float(line.rpartition(" ")[2])
        for name in ("batch_clips_total", "jobs_total")
        for line in metrics.splitlines()
        if line.startswith(f"gmp_atl_serve_{name} ")
    )
    assert clips / jobs > 2, "requests were computed in batches"


def test_a_killed_replica_is_started_again_and_no_request_is_lost(
    server: Served, recording: Path
) -> None:
    data = recording.read_bytes()
    (replica,) = server.processes("ServeReplica:gmp-atl:Model")
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(ask, server, data, "?window=1&hop=0.2") for _ in range(20)]
        while not any(one.done() for one in waiting):
            pass
        os.kill(replica.pid, signal.SIGKILL)
        answers = [one.result() for one in waiting]
    assert {a.status_code for a in answers} <= {200, 503}, [a.text for a in answers]
    assert all(a.json() for a in answers)

    while ask(server, data).status_code == 503:
        pass
    assert ask(server, data).status_code == 200
    (new,) = server.processes("ServeReplica:gmp-atl:Model")
    assert new.pid != replica.pid


def open_page(page: Page, server: Served) -> list[str]:
    """Give the page its token; returns what the browser complains of from then on."""
    page.goto(server.url)
    page.locator("#token").fill(TOKEN)
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#model")).to_contain_text("small-model")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


DROP = """
async ([name, text]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}
"""

WEBM = """
async () => {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream, { mimeType: "audio/webm;codecs=opus" });
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  const stopped = new Promise((done) => (recorder.onstop = done));
  recorder.start();
  await new Promise((done) => setTimeout(done, 1500));
  recorder.stop();
  await stopped;
  const bytes = new Uint8Array(await new Blob(pieces).arrayBuffer());
  return btoa(String.fromCharCode(...bytes));
}
"""


def check_result(page: Page, name: str) -> None:
    expect(page.locator("#name")).to_have_text(name)
    expect(page.locator("#status")).to_have_text("")
    assert page.locator("#emotion").inner_text() in EMOTIONS
    assert page.locator("#bars .fill").count() == len(EMOTIONS)
    assert len(page.locator("#wave path").get_attribute("d") or "") > 1000
    assert page.locator("#band rect").count() >= 1
    assert page.locator("#curves polyline").count() == len(EMOTIONS)
    assert "Real-time factor" in page.locator("#speed").inner_text()


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([(1280, "light"), (400, "dark")], id="two"),
        pytest.param([(400, "light"), (1280, "dark")], id="the-others", marks=pytest.mark.nightly),
    ],
)
def test_a_person_records_and_drops_files(
    server: Served, recording: Path, folder: Path, looks: list[tuple[int, str]]
) -> None:
    flags = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
        "--autoplay-policy=no-user-gesture-required",
    )
    pictures = Path(os.environ.get("GMP_ATL_TEST_PICTURES") or folder)
    with chromium(*flags) as browser:
        for width, scheme in looks:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme=scheme,  # pyright: ignore[reportArgumentType]
                permissions=["microphone"],
            )
            page = context.new_page()
            page.set_default_timeout(120_000)
            expect.set_options(timeout=120_000)
            complaints = open_page(page, server)
            page.locator("#record").click()
            expect(page.locator("#status")).to_contain_text("Recording: 2.")
            page.locator("#record").click()
            check_result(page, "recording of the microphone")

            dropped = base64.b64encode(recording.read_bytes()).decode()
            page.evaluate(DROP, ["speech.wav", dropped])
            check_result(page, "speech.wav")
            assert page.locator("#band rect").count() == 4, "windows of 3 s, 1 s apart"
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"wider than {width} px"
            page.screenshot(path=pictures / f"serve-{width}-{scheme}.png", full_page=True)
            assert complaints == []

            page.evaluate(DROP, ["notes.txt", base64.b64encode(b"no audio").decode()])
            expect(page.locator("#status")).to_contain_text("no recording that libsndfile reads")
            if (width, scheme) == (1280, "light"):
                page.evaluate(DROP, ["opus.webm", page.evaluate(WEBM)])
                check_result(page, "opus.webm")
            page.goto(f"{server.url}/docs")
            expect(page.locator("#endpoints")).to_contain_text("/v1/predict")
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            page.screenshot(path=pictures / f"docs-{width}-{scheme}.png", full_page=True)
            context.close()


def test_ctrl_c_ends_it_and_nothing_secret_was_printed(server: Served) -> None:
    """The last test of the module: it ends the server."""
    processes = server.processes()
    assert server.end(signal.SIGINT) == 130
    assert "stopping" in server.text
    assert "Traceback" not in server.text
    assert TOKEN not in server.text
    assert not [one for one in processes if one.is_running() and one.status() != "zombie"]


def test_a_signal_while_it_starts_ends_it(model: Path) -> None:
    with started(str(model), "--port", "0") as served:
        served.wait_for("starting small-model")
        assert served.end(signal.SIGTERM) == 143
        assert "stopp" in served.text


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    with started(str(tmp_path), "--port", "0") as served:
        assert served.process.wait(300) == 6
    assert "is not a model that finetune wrote" in served.text
    assert "Traceback" not in served.text

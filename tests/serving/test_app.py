"""The HTTP side of ``gmp-atl serve`` with a real model in this process: answers, limits, tokens, pages."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from fastapi.testclient import TestClient
from support.model_service import OneProcess
from support.small_models import EMOTIONS, write_classifier

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.errors import ConfigError, ModelError
from gmp_atl_dist.predict import Predictor
from gmp_atl_dist.prediction.notes import NOTES
from gmp_atl_dist.serving.app import build_app
from gmp_atl_dist.serving.batching import Batcher
from gmp_atl_dist.serving.before_start import check_model, free_port
from gmp_atl_dist.serving.clips import ClipJob, jobs_of, plan_clips
from gmp_atl_dist.serving.gate import Gate
from gmp_atl_dist.serving.guard import digest_of
from gmp_atl_dist.serving.limits import Limits
from gmp_atl_dist.serving.refusals import STATUS_OF, Refusal
from gmp_atl_dist.serving.runner import Computed, ModelRunner
from gmp_atl_dist.serving.token import TOKEN_VARIABLE, check_exposure, token_digest

RATE = 16_000
TOKEN = "a-token-of-the-tests-0123456789"
LOCAL = "http://127.0.0.1"


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (180 + 40 * np.sin(3 * t)) * t)).astype(np.float32)


def wav(wave: np.ndarray, rate: int = RATE, format: str = "WAV") -> bytes:
    out = io.BytesIO()
    sf.write(out, wave, rate, format=format, subtype="PCM_16")
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="module")
def service(folder: Path) -> OneProcess:
    return OneProcess(ModelRunner(str(folder), "tiny", "cpu", threads=1))


@pytest.fixture
def client(service: OneProcess) -> Iterator[TestClient]:
    limits = Limits(max_mib=0.5, max_s=40, queue=3)
    with TestClient(build_app(service, limits, None), base_url=LOCAL) as client:
        yield client


def post(client: TestClient, data: bytes, query: str = "", **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"/v1/predict{query}", content=data, headers=named)


def error_code(response) -> str:
    body = response.json()
    assert set(body) == {"error"}
    assert len(body["error"]["message"]) > 20, "says what to do"
    return body["error"]["code"]


def test_an_answer_is_what_predict_says(client: TestClient, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone(1.3, 44_100), 44_100))
    (expected,) = Predictor(folder).predict([path])

    by_body = post(client, path.read_bytes(), content_type="audio/wav")
    by_form = client.post("/v1/predict", files={"file": ("a.wav", path.read_bytes())})

    for response in (by_body, by_form):
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-6)
        assert answer["emotion"] == max(expected, key=expected.__getitem__)
        assert answer["duration_s"] == pytest.approx(1.3, abs=1e-3)
        assert answer["windows"] == []
        assert answer["notes"] == []
        timing = answer["timing"]
        assert timing["real_time_factor"] == pytest.approx(timing["total_ms"] / 1300, rel=1e-3)


@pytest.mark.parametrize(
    ("wave", "rate", "codes"),
    [
        (0.001 * tone(0.3, 8000), 8000, ["short", "quiet", "low_rate"]),
        (np.sign(tone(1)), RATE, ["clipped"]),
    ],
)
def test_an_answer_has_the_notes_of_predict(
    client: TestClient, wave: np.ndarray, rate: int, codes: list[str]
) -> None:
    answer = post(client, wav(wave, rate)).json()
    assert answer["notes"] == [{"code": code, "message": NOTES[code]} for code in codes]


@pytest.mark.parametrize("rate", [RATE, 4000])
def test_silence_gets_no_emotion(client: TestClient, rate: int) -> None:
    response = post(client, wav(np.zeros(2 * rate), rate))
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "unusable_recording"
    assert "holds only digital silence" in response.json()["error"]["message"]


def test_silent_windows_count_nowhere(client: TestClient) -> None:
    wave = np.concatenate([tone(30.5, 4000), np.zeros(9 * 4000)])
    answer = post(client, wav(wave, 4000), "?window=4&hop=4").json()
    # The last one planned is from 35.5 s to the end.
    assert [w["start_s"] for w in answer["windows"]] == [4 * i for i in range(8)]
    assert [n["code"] for n in answer["notes"]] == ["silent_windows", "low_rate"]
    for emotion, probability in answer["probabilities"].items():
        mean = np.mean([w["probabilities"][emotion] for w in answer["windows"]])
        assert probability == pytest.approx(mean, abs=1e-6)


def test_a_wav_from_a_pipe_is_as_long_as_its_samples(client: TestClient) -> None:
    data = bytearray(wav(tone(1)))
    at = data.index(b"data") + 4
    data[4:8], data[at : at + 4] = (36).to_bytes(4, "little"), bytes(4)
    assert post(client, bytes(data)).json()["duration_s"] == 1
    refused = post(client, wav(tone(1))[:20_000])
    assert refused.status_code == 422
    assert "cut short" in refused.json()["error"]["message"]


def test_windows_and_the_waveform(client: TestClient, folder: Path) -> None:
    wave = tone(2.6)
    answer = post(client, wav(wave), "?window=1&hop=0.5&waveform=50").json()

    spans = [(w["start_s"], w["end_s"]) for w in answer["windows"]]
    assert spans == [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2.5), (1.6, 2.6)], (
        "the last one is at the end"
    )
    for (start, end), window in zip(spans, answer["windows"], strict=True):
        part = wave[round(start * RATE) : round(end * RATE)]
        (expected,) = Predictor(folder).predict([np.rint(part * 32767).astype(np.int16) / 32768.0])
        assert window["probabilities"] == pytest.approx(expected, abs=1e-3)
    assert len(answer["waveform"]) == 50
    assert max(high for _, high in answer["waveform"]) == pytest.approx(0.3, abs=0.01)


def test_a_long_recording_is_answered_from_windows(client: TestClient) -> None:
    response = client.post(
        "/v1/predict", files={"f": ("a.flac", wav(tone(33, 8000), 8000, "FLAC"))}
    )
    answer = response.json()
    assert answer["computed_from"] == "windows"
    assert answer["windows"][-1]["end_s"] == pytest.approx(33)
    # At each moment the mean of the windows that see it, and of these the mean over time.
    starts, ends = (
        np.array([window[key] for window in answer["windows"]]) for key in ("start_s", "end_s")
    )
    moments = np.arange(0.005, 33, 0.01)[:, None]
    sees = (starts <= moments) & (moments < ends)
    for emotion in EMOTIONS:
        values = np.array([window["probabilities"][emotion] for window in answer["windows"]])
        expected = ((sees * values).sum(1) / sees.sum(1)).mean()
        assert answer["probabilities"][emotion] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("data", "query", "headers", "status", "code"),
    [
        (b"", "", {}, 400, "no_recording"),
        (b"\x00" * 600_000, "", {}, 413, "too_large"),
        (b"no audio at all", "", {}, 415, "not_audio"),
        (b"{}", "", {"content_type": "application/json"}, 415, "not_audio"),
        (wav(tone(41, 4000), 4000), "", {}, 413, "too_long"),
        (wav(tone(0.02)), "", {}, 422, "too_short"),
        (wav(tone(1))[:-9000], "", {}, 422, "unusable_recording"),
        (wav(tone(1)), "?window=abc", {}, 400, "bad_parameter"),
        (wav(tone(1)), "?window=-1", {}, 400, "bad_parameter"),
        (wav(tone(1)), "?window=nan", {}, 400, "bad_parameter"),
        (wav(tone(1)), "?windw=1", {}, 400, "bad_parameter"),
        (wav(np.stack([tone(1), -tone(1)], axis=1)), "", {}, 422, "unusable_recording"),
        (wav(tone(1)), "?window=31", {}, 400, "bad_window"),
        (wav(tone(1)), "?hop=1", {}, 400, "bad_window"),
        (wav(tone(1)), "?window=0.1&hop=0.0001", {}, 400, "bad_window"),
        (b"--", "", {"content_type": "multipart/form-data"}, 400, "bad_form"),
        (
            b"--x\r\nrubbish",
            "",
            {"content_type": "multipart/form-data; boundary=x"},
            400,
            "no_recording",
        ),
        (b"", "", {"content_type": "multipart/form-data; boundary=x"}, 400, "no_recording"),
    ],
)
def test_what_cannot_be_used_is_named(
    client: TestClient, data: bytes, query: str, headers: dict[str, str], status: int, code: str
) -> None:
    response = post(client, data, query, **headers)
    assert (response.status_code, error_code(response)) == (status, code)


def test_a_parameter_in_the_form_is_not_ignored(client: TestClient) -> None:
    response = client.post(
        "/v1/predict", files={"file": ("a.wav", wav(tone(2)))}, data={"window": "1"}
    )
    assert (response.status_code, error_code(response)) == (400, "bad_form")
    assert "'window'" in response.text
    assert "?window=3" in response.text


def test_advice_is_what_a_client_can_do(client: TestClient) -> None:
    cancelling = post(client, wav(np.stack([tone(1), -tone(1)], axis=1))).text
    assert "give one channel of it" in cancelling
    assert "corpus." not in cancelling
    assert "'windw' (did you mean 'window'?)" in post(client, wav(tone(1)), "?windw=1&hop=1").text
    assert "it takes none" in client.get("/v1/model?x=1").text
    assert client.get("/healthz?cache=no").status_code == 200
    assert client.get("/?from=a-mail").status_code == 200


def test_every_code_is_listed_in_the_description_and_in_the_documentation(
    client: TestClient,
) -> None:
    root = Path(__file__).resolve().parents[2]
    sources = "".join(p.read_text() for p in (root / "gmp_atl_dist/serving").glob("*.py"))
    raised = {(c, int(s)) for s, c in re.findall(r'Refusal\(\s*(\d{3}),\s*"(\w+)"', sources)}
    assert raised == set(STATUS_OF.items())

    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", (root / "docs/serving.md").read_text(), re.M)
    listed = {(c, int(status)) for status, codes in rows for c in re.findall(r"`([a-z_]+)`", codes)}
    assert listed == set(STATUS_OF.items())

    api = client.get("/openapi.json").json()
    answers = api["paths"]["/v1/predict"]["post"]["responses"]
    shown = {
        (code, int(status))
        for status, answer in answers.items()
        if status != "200"
        for code in answer["description"].removeprefix("Codes: ").split(", ")
    }
    elsewhere = {item for item in STATUS_OF.items() if item[0] in api["info"]["description"]}
    assert shown | elsewhere == set(STATUS_OF.items())


def test_a_file_of_many_channels_is_refused_before_it_is_decoded(client: TestClient) -> None:
    silence = np.zeros((39 * RATE, 8), np.int16)
    data = wav(silence, RATE, "FLAC")
    assert len(data) < 500_000
    assert error_code(post(client, data)) == "too_many_samples"


def test_an_upload_of_unknown_length_ends_at_the_limit(client: TestClient) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b"\x00" * 100_000

    assert error_code(client.post("/v1/predict", content=pieces())) == "too_large"
    form = {"file": ("a.wav", b"\x00" * 600_000)}
    assert client.post("/v1/predict", files=form).status_code == 413


def test_decoding_and_computing_have_time_limits(
    service: OneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(build_app(service, Limits(decode_s=1e-6), None), base_url=LOCAL) as client:
        assert error_code(post(client, wav(tone(30)))) == "decoding_too_slow"
    monkeypatch.setattr(service, "delay_s", 30.0)
    with TestClient(build_app(service, Limits(answer_s=0.05), None), base_url=LOCAL) as client:
        response = post(client, wav(tone(1)))
        assert (response.status_code, error_code(response)) == (503, "overloaded")
        assert int(response.headers["retry-after"]) >= 1


def test_a_full_server_says_when_to_come_back() -> None:
    gate = Gate(max_requests=2, max_bytes=100)
    with gate.admit(10), gate.admit(10), pytest.raises(Refusal) as full, gate.admit(1):
        pass
    assert (full.value.status, full.value.headers["Retry-After"]) == (503, "1")
    with gate.admit(60), pytest.raises(Refusal, match="uploads"), gate.admit(60):
        pass
    assert gate.requests == 0
    with gate.admit(100):
        pass


def test_a_defect_is_answered_without_its_text(
    client: TestClient, service: OneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "fails", True)
    response = post(client, wav(tone(1)))
    assert (response.status_code, error_code(response)) == (500, "internal_error")
    assert "secret" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_the_token_guards_all_but_the_pages(
    service: OneProcess, caplog: pytest.LogCaptureFixture
) -> None:
    app = build_app(service, Limits(), digest_of(TOKEN))
    with TestClient(app, base_url="http://somewhere.example") as client:
        for path in ("/", "/docs", "/openapi.json", "/healthz", "/static/page.js"):
            assert client.get(path).status_code == 200, path
        for path in ("/v1/model", "/metrics", "/anything"):
            for given in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"):
                headers = [(b"Authorization", given.encode("latin-1"))] if given else []
                response = client.get(path, headers=headers)
                assert (response.status_code, error_code(response)) == (401, "no_token")
                assert response.headers["www-authenticate"] == "Bearer"
        assert post(client, wav(tone(1))).status_code == 401
        good = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/model", headers=good).json()["emotions"] == list(EMOTIONS)
        metrics = client.get("/metrics", headers=good).text
    assert 'gmp_atl_serve_refused_total{code="no_token"} 16' in metrics
    assert TOKEN not in metrics + caplog.text


def test_without_a_token_only_loopback_names_are_answered(service: OneProcess) -> None:
    """A web page could resolve its own name to 127.0.0.1 and read the answers."""
    app = build_app(service, Limits(), None)
    for host, status in (
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("evil.example:8000", 400),
        ("127.0.0.1.evil.example", 400),
    ):
        with TestClient(app, base_url=LOCAL) as client:
            assert client.get("/v1/model", headers={"Host": host}).status_code == status, host


def test_where_a_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert token_digest(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert token_digest(None) == digest_of(TOKEN)
    file = tmp_path / "token"
    file.write_text("another-token-0123456789\n")
    assert token_digest(file) == digest_of("another-token-0123456789")
    file.write_text("too short")
    with pytest.raises(ConfigError) as short:
        token_digest(file)
    assert "too short" not in str(short.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        token_digest(tmp_path / "none")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_no_server_is_open_to_others_without_a_token(
    host: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert main(["serve", str(folder), "--host", host]) == 2
    assert "needs a token" in capsys.readouterr().err
    check_exposure(host, digest_of(TOKEN))
    for loopback in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        check_exposure(loopback, None)


def test_what_is_no_model_and_what_is_no_port_are_known_before_ray_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json and no model\.safetensors"):
        check_model(str(tmp_path))
    port = free_port("127.0.0.1", 0)
    assert 0 < port < 65536
    with pytest.raises(ConfigError, match=r"--host 203\.0\.113\.1"):
        free_port("203.0.113.1", port)


def test_the_description_is_complete_and_the_pages_load_nothing_from_elsewhere(
    client: TestClient,
) -> None:
    api = client.get("/openapi.json").json()
    assert set(api["paths"]) == {"/v1/predict", "/v1/model", "/healthz", "/metrics"}
    predict = api["paths"]["/v1/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/octet-stream",
    }
    assert {p["name"] for p in predict["parameters"]} == {"window", "hop", "waveform"}
    assert all(p["description"] for p in predict["parameters"])
    assert {"200", "400", "401", "413", "415", "422", "503"} <= set(predict["responses"])
    for path in ("/", "/docs"):
        page = client.get(path)
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "http" not in policy
        linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert not [link for link in linked if "//" in link]
        for link in linked:
            if link.startswith("static/"):
                assert client.get(f"/{link}").status_code == 200, link
                imports = re.findall(r'from "\./([^"]+)"', client.get(f"/{link}").text)
                assert all(client.get(f"/static/{name}").status_code == 200 for name in imports)
        assert "<style" not in page.text
        assert " style=" not in page.text
        assert re.search(r"<script(?! type=\"module\" src=)", page.text) is None


def test_unknown_paths_and_methods_have_our_words(client: TestClient) -> None:
    assert error_code(client.get("/v2/predict")) == "not_found"
    assert error_code(client.get("/v1/predict")) == "wrong_method"
    assert 'path="other",status="404"' in client.get("/metrics").text


def test_counts(client: TestClient) -> None:
    for _ in range(2):
        assert post(client, wav(tone(1.5)), "?window=0.5&hop=0.25").status_code == 200
    text = client.get("/metrics").text
    for line in (
        'gmp_atl_serve_requests_total{path="/v1/predict",status="200"} 2',
        "gmp_atl_serve_audio_seconds_total 3",
        "gmp_atl_serve_answer_seconds_count 2",
        "gmp_atl_serve_clips_total 12",
        "gmp_atl_serve_in_flight 0",
    ):
        assert f"\n{line}\n" in text
    for line in text.splitlines():
        assert line.startswith("# ") or re.fullmatch(r"[a-z_]+(\{[^}]*\})? [-+.e0-9]+", line), line


def test_clips_cover_a_recording_and_jobs_are_small() -> None:
    assert plan_clips(30 * RATE, None, None).windows == ()
    plan = plan_clips(300 * RATE, 3.0, 1.0)
    assert plan.whole is None
    assert plan.windows[0][0] == 0
    assert plan.windows[-1][1] == 300 * RATE

    pcm16 = np.arange(300 * RATE, dtype=np.int32).astype(np.int16)
    jobs = list(jobs_of(pcm16, plan.spans))
    assert max(len(job.spans) for job in jobs) == 10
    cut = [job.pcm16[start:stop] for job in jobs for start, stop in job.spans]
    for (start, stop), clip in zip(plan.windows, cut, strict=True):
        assert np.array_equal(clip, pcm16[start:stop])


def test_a_batch_of_many_requests_is_exact(service: OneProcess) -> None:
    runner = service.runner
    jobs = [
        ClipJob(np.rint(32767 * tone(s)).astype(np.int16), ((0, round(s * RATE)),))
        for s in (0.5, 2.0, 0.03, 1.1)
    ]
    together = runner(jobs)
    for job, one in zip(jobs, together, strict=True):
        np.testing.assert_allclose(one.probabilities, runner([job])[0].probabilities, atol=1e-5)
        assert (one.batch_jobs, one.batch_clips) == (4, 4)


def test_the_next_batch_collects_while_one_is_computed() -> None:
    free = threading.Event()
    sizes: list[int] = []

    def run(jobs: Sequence[ClipJob]) -> list[Computed]:
        free.wait(30)
        sizes.append(len(jobs))
        if any(not job.spans for job in jobs):
            raise ValueError("a defect")
        return [Computed([[float(job.spans[0][1])]], 0.0, len(jobs), 1, 1.0) for job in jobs]

    def job(number: int) -> ClipJob:
        return ClipJob(np.zeros(1, np.int16), ((0, number),) if number else ())

    async def ask() -> None:
        batcher = Batcher(run, max_jobs=4)
        first = asyncio.create_task(batcher(job(1)))
        while not batcher._worker:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        others = [asyncio.create_task(batcher(job(n))) for n in range(2, 9)]
        await asyncio.sleep(0)
        others[0].cancel()
        free.set()
        results = [await first, *[await one for one in others[1:]]]
        assert [one.probabilities[0][0] for one in results] == [1, 3, 4, 5, 6, 7, 8]
        assert sizes == [1, 3, 3], "nobody waits for the one that was given up"
        with pytest.raises(ValueError, match="a defect"):
            await batcher(job(0))
        assert (await batcher(job(9))).batch_jobs == 1, "it goes on"

    asyncio.run(ask())

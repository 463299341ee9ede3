"""A server of gmp-atl serve, clients that ask it, and the bare model in a loop."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from benchmarks.harness.rounds import MeasurementError
from gmp_atl_dist.audio import SAMPLE_RATE_HZ

REPOSITORY = Path(__file__).resolve().parents[2]
_START_S = 300.0


@dataclass(frozen=True)
class Load:
    """What a number of clients saw.

    Attributes:
        per_s: answered requests per second.
        p50_s, p99_s: time of a request.
        batch_s: median time of the forward pass that a request was a part of.
        refused: requests that were answered with 503.
    """

    per_s: float
    p50_s: float
    p99_s: float
    batch_s: float
    refused: int


def write_model(folder: Path, size: str) -> None:
    """A classifier of a named size with random weights, as ``finetune`` writes it."""
    from gmp_atl_dist.models.emotion import EmotionModel
    from gmp_atl_dist.models.hubert import build_random
    from gmp_atl_dist.models.source import model_to_files

    emotions = ("anger", "happiness", "neutral", "sadness")
    model = EmotionModel.from_backbone(build_random(size, 0), emotions).eval()
    folder.mkdir(parents=True)
    for name, data in model_to_files(model).items():
        (folder / name).write_bytes(data)


def recordings(count: int) -> list[bytes]:
    """WAV files of noise, 2 to 5 s long."""
    random = np.random.default_rng(0)
    made: list[bytes] = []
    for seconds in np.linspace(2, 5, count):
        out = io.BytesIO()
        wave = 0.1 * random.standard_normal(int(seconds * SAMPLE_RATE_HZ))
        sf.write(out, wave.astype(np.float32), SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
        made.append(out.getvalue())
    random.shuffle(made)
    return made


class BareModel:
    """The model in this process: one recording after the other, on all cores, already decoded."""

    def __init__(self, folder: Path, files: Sequence[bytes]) -> None:
        from gmp_atl_dist.audio import decode_pcm16, pcm16_to_float
        from gmp_atl_dist.models.stored import load_emotion_model

        self._model = load_emotion_model(str(folder))
        self._waves = [pcm16_to_float(decode_pcm16(data)) for data in files]

    def per_s(self, seconds: float) -> float:
        """Recordings per second."""
        from gmp_atl_dist.inference.predictor import probabilities_of

        done, started_s = 0, time.perf_counter()
        # Whole rounds over the recordings, since their lengths differ.
        while (spent_s := time.perf_counter() - started_s) < seconds or done % len(self._waves):
            probabilities_of(self._model, [self._waves[done % len(self._waves)]])
            done += 1
        return done / spent_s


@contextmanager
def server(folder: Path) -> Iterator[int]:
    """The port of a server on a Ray of its own; it ends with the block.

    Raises:
        MeasurementError: it does not start.
    """
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(REPOSITORY)
    process = subprocess.Popen(
        [sys.executable, "-m", "gmp_atl_dist.cli", "serve", str(folder), "--port", "0"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    late = threading.Timer(_START_S, process.kill)
    late.start()
    try:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if ready := re.search(r"ready: http://[^:]+:(\d+)/", line):
                late.cancel()
                yield int(ready.group(1))
                return
        raise MeasurementError(f"the server did not start: {''.join(said)}")
    finally:
        late.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def load(port: int, files: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Clients that each send one recording after the other for ``seconds``, on kept connections.

    Requests that are under way at the end are waited for and counted, with their time.

    Raises:
        MeasurementError: a request got no answer, or another status than 200 and 503.
    """
    times_s: list[float] = []
    batches_s: list[float] = []
    refused = [0]
    errors: list[str] = []
    started_s = time.perf_counter()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        turn = number
        try:
            while time.perf_counter() - started_s < seconds:
                sent_s = time.perf_counter()
                connection.request("POST", "/v1/predict", files[turn % len(files)])
                response = connection.getresponse()
                body = json.loads(response.read())
                if response.status == 503:
                    refused[0] += 1
                    time.sleep(0.1)
                    continue
                if response.status != 200:
                    errors.append(f"{response.status}: {body}")
                    return
                times_s.append(time.perf_counter() - sent_s)
                batches_s.append(body["timing"]["compute_ms"] / 1000)
                turn += clients
        except (OSError, http.client.HTTPException, ValueError) as e:
            errors.append(f"{type(e).__name__}: {e}")
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent_s = time.perf_counter() - started_s
    if errors or not times_s:
        raise MeasurementError(f"{len(errors)} requests failed: {errors[:3]}")
    p50_s, p99_s = np.quantile(times_s, [0.5, 0.99])
    return Load(
        per_s=len(times_s) / spent_s,
        p50_s=float(p50_s),
        p99_s=float(p99_s),
        batch_s=float(np.median(batches_s)),
        refused=refused[0],
    )

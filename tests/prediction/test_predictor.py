"""The Predictor: the same probabilities alone and in a batch, in windows, and from files and waves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from support.classifiers import EMOTIONS, write_classifier, write_noise
from support.kernels import KernelCounter
from support.lanes import LateLane

from gmp_atl_dist import Predictor
from gmp_atl_dist.audio import decode_pcm16, pcm16_to_float
from gmp_atl_dist.errors import CorpusError, ModelError
from gmp_atl_dist.inference.classifier import Classifier
from gmp_atl_dist.inference.predictor import probabilities_of
from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.hubert import Hubert, build_random
from gmp_atl_dist.models.layer_mean import PoolLayers
from gmp_atl_dist.models.packed_slots import SlotHubert
from gmp_atl_dist.prediction.stream import ClipCount

TOLERANCE = 1e-4
"""Of a probability against the padded forward pass of ``evaluate``."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products on several threads of a busy machine take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "model")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recordings")
    lengths_s = (0.5, 2.0, 0.3, 1.1, 0.9, 1.7, 0.4, 0.6, 1.3, 0.8)
    return [write_noise(folder / f"{i}.wav", s, seed=i) for i, s in enumerate(lengths_s)]


def wave_of(path: Path) -> np.ndarray:
    return pcm16_to_float(decode_pcm16(path.read_bytes()))


@pytest.mark.parametrize(
    ("loss", "pooling"), [("am_softmax", "attentive"), ("cross_entropy", "mean")]
)
def test_it_is_the_forward_pass_of_evaluate(files: list[Path], loss: str, pooling: str) -> None:
    made = EmotionModel.from_backbone(
        build_random("tiny", 1), EMOTIONS, embedding_dim=8, loss=loss, pooling=pooling
    ).eval()
    waves = [wave_of(path) for path in files]
    expected = probabilities_of(made, waves)
    for together in (False, True):
        found = Classifier(made, together=together)(waves)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def in_slots(made: EmotionModel) -> Classifier:
    """The branch of a GPU, on this device."""
    found = Classifier(made, together=True)
    backbone = made.backbone
    assert isinstance(backbone, Hubert)
    found._frames = SlotHubert(
        backbone, made.layers, window_frames=6000, context_frames=250, half=False, flash=False
    )
    return found


@pytest.mark.parametrize("pool_layers", ["last", "average"])
def test_a_batch_of_a_gpu_is_few_kernels_and_copies(
    files: list[Path], pool_layers: PoolLayers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples and two plans are sent. Clips one at a time took a kernel per clip and layer more."""
    backbone = build_random("tiny", 1)
    made = EmotionModel.from_backbone(
        backbone, EMOTIONS, embedding_dim=8, pool_layers=pool_layers
    ).eval()
    waves = [wave_of(path) for path in files]
    classify = in_slots(made)
    lane = LateLane()
    monkeypatch.setattr("gmp_atl_dist.inference.classifier.current_lane", lambda: lane)
    found = classify(waves)
    assert (lane.sent, lane.fetched) == (3, 0)
    np.testing.assert_allclose(found, probabilities_of(made, waves), atol=TOLERANCE)

    def kernels(clips: list[np.ndarray]) -> int:
        with KernelCounter() as counter:
            classify(clips)
        return counter.kernels

    assert kernels([waves[1]] * 20) <= kernels([waves[1]] * 4)


def test_no_result_depends_on_the_batch_or_the_threads(model: Path, files: list[Path]) -> None:
    alone = [Predictor(model).predict([path])[0] for path in files]
    for batch, threads in ((1, 1), (3, 2), (64, 1)):
        predictor = Predictor(model, batch=batch, threads=threads)
        assert predictor.emotions == EMOTIONS
        # The same bits: MKL's strict mode is on, as in the command.
        assert predictor.predict(files) == alone
    for probabilities in alone:
        assert sum(probabilities.values()) == pytest.approx(1)


def test_waves_and_files_are_the_same(model: Path, files: list[Path]) -> None:
    predictor = Predictor(model)
    waves = [wave_of(path) for path in files[:2]]
    assert predictor.predict([waves[0], str(files[0]), waves[1]]) == predictor.predict(
        [files[0], files[0], files[1]]
    )
    assert predictor.predict_wave(waves[1].astype(np.float64)) == predictor.predict([files[1]])[0]


def test_a_model_reads_the_channel_that_it_was_trained_on(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    quiet, loud = 0.05 * rng.standard_normal(8000), 0.4 * rng.standard_normal(8000)
    stereo = tmp_path / "stereo.wav"
    sf.write(stereo, np.stack([quiet, loud], axis=1), 16_000, subtype="PCM_16")
    sf.write(tmp_path / "first.wav", quiet, 16_000, subtype="PCM_16")
    trained_on_first = tmp_path / "model"
    shutil.copytree(model, trained_on_first)
    config = json.loads((model / "config.json").read_text())
    (trained_on_first / "config.json").write_text(json.dumps(config | {"channel": "first"}))

    mean, first = Predictor(model).predict([stereo, tmp_path / "first.wav"])
    (chosen,) = Predictor(trained_on_first).predict([stereo])
    assert chosen == first != mean

    (trained_on_first / "config.json").write_text(json.dumps(config | {"channel": "left"}))
    with pytest.raises(ModelError, match="channel 'left' is not known"):
        Predictor(trained_on_first)


def test_bad_recordings_are_named_and_the_stream_goes_on(
    model: Path, files: list[Path], tmp_path: Path
) -> None:
    predictor = Predictor(model)
    absent = tmp_path / "absent.wav"
    given = [files[0], absent, np.zeros((2, 16_000), np.float32), files[1]]

    first, second, third, fourth = predictor.stream(given)

    assert first.verdict is not None
    assert fourth.verdict is not None
    assert second.error == "cannot be read (No such file or directory)"
    assert (third.file, third.error) == (
        "wave 2",
        "has shape (2, 16000), expected [num_samples], mono",
    )
    with pytest.raises(CorpusError, match=r"(?s)absent\.wav: cannot be read.*wave 2: has shape"):
        predictor.predict(given)
    for bad in (np.full(16_000, np.nan, np.float32), np.zeros(10, np.float32)):
        with pytest.raises(CorpusError, match=r"wave 0: (has samples|is too short)"):
            predictor.predict_wave(bad)


def test_windows_are_predicted_like_recordings_of_their_own(model: Path, tmp_path: Path) -> None:
    path = write_noise(tmp_path / "long.wav", 5.5)
    predictor = Predictor(model, batch=2)
    wave = wave_of(path)

    result = predictor.windows(path, window_s=3.0, hop_s=1.0)

    assert [(w.start_s, w.end_s) for w in result.windows] == [
        *((0, 3), (1, 4), (2, 5)),
        (2.5, 5.5),
    ]
    for window in result.windows:
        cut = wave[round(window.start_s * 16_000) : round(window.end_s * 16_000)]
        assert window.probabilities == predictor.predict_wave(cut)
    assert result.verdict is not None
    assert (result.verdict.start_s, result.verdict.end_s) == (0, 5.5)
    assert sum(result.verdict.probabilities.values()) == pytest.approx(1)
    assert result.verdict.probability == max(result.verdict.probabilities.values())
    with pytest.raises(CorpusError, match="absent"):
        predictor.windows(tmp_path / "absent.wav")


def test_the_count_moves_within_a_long_recording(model: Path, tmp_path: Path) -> None:
    count, seen = ClipCount(), []
    count.changed = lambda: seen.append((count.done, count.known))
    stream = Predictor(model).stream(
        [write_noise(tmp_path / "long.wav", 30.0, seed=1)], window_s=1.0, hop_s=1.0, count=count
    )
    (result,) = stream
    assert seen[-1] == (len(result.windows), len(result.windows)) == (30, 30)
    assert len(seen) > 3
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_a_recording_longer_than_any_of_training_is_predicted_and_noted(
    model: Path, tmp_path: Path
) -> None:
    sf.write(tmp_path / "long.wav", 1e-3 * np.sin(np.arange(16_000 * 90) / 9), 16_000)
    (result,) = Predictor(model).stream([tmp_path / "long.wav"])
    assert result.verdict is not None
    assert set(result.notes) == {"long", "quiet"}


def test_silence_gets_no_emotion(model: Path, tmp_path: Path) -> None:
    sf.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    sf.write(tmp_path / "inverted.wav", np.outer(np.sin(np.arange(16_000)), [0.5, -0.5]), 16_000)
    waves = [tmp_path / "silent.wav", tmp_path / "inverted.wav", np.full(16_000, 1e-7)]
    results = list(Predictor(model).stream(waves))
    assert [result.verdict for result in results] == [None] * 3
    silent, inverted, wave = (result.error for result in results)
    assert "holds only digital silence" in silent
    assert "holds only digital silence" in wave
    assert "cancel when mixed" in inverted


def test_silent_windows_count_nowhere(model: Path) -> None:
    predictor = Predictor(model)
    speech = np.random.default_rng(0).normal(size=32_000).astype(np.float32) / 10
    wave = np.concatenate([speech, np.zeros(48_000, np.float32)])
    whole = predictor.windows(wave, window_s=1.0, hop_s=1.0)
    alone = predictor.windows(speech, window_s=1.0, hop_s=1.0)
    assert whole.notes == ("partly_silent", "silent_windows")
    assert whole.windows == alone.windows
    assert whole.verdict is not None
    assert alone.verdict is not None
    assert whole.verdict.probabilities == alone.verdict.probabilities
    assert (whole.verdict.start_s, whole.verdict.end_s) == (0, 5)


def test_results_come_before_the_list_ends(model: Path, files: list[Path]) -> None:
    """Memory does not grow with the list: an endless one gives results."""
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield files[2]

    stream = Predictor(model, batch=4).stream(endless())
    for _ in range(20):
        assert next(stream).verdict is not None
    stream.close()
    # 20 results, 64 read ahead, and what two batches hold.
    assert taken <= 20 + 64 + 3 * 4


def test_a_device_that_is_not_there(model: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="PyTorch sees no GPU"):
        Predictor(model, device="cuda")
    assert Predictor(model, device="cpu").emotions == EMOTIONS

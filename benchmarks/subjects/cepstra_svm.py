"""The floor of the quality table: statistics of cepstra and F0, and a support vector machine.

Of each utterance, librosa computes 20 MFCC, their first differences, the root mean square and F0 (YIN,
de Cheveigné and Kawahara 2002); scikit-learn trains the machine. Its two parameters are chosen by
cross-validation over groups of training speakers. A test speaker is used for the test alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness.rounds import MeasurementError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.index import IndexRow, Utterances, training_utterances
from gmp_atl_dist.store.readers import AudioReader

if TYPE_CHECKING:
    from sklearn.model_selection import GridSearchCV

RATE_HZ = 16_000
_HOP = 160
_WINDOW = 1024
_F0_HZ = (65.0, 500.0)
_QUANTILES = (0.1, 0.5, 0.9)
_GRID = {"svc__C": (1.0, 3.0, 10.0, 30.0), "svc__gamma": (0.3, 1.0, 3.0)}
"""gamma as a multiple of 1 / dimensions, its value in scikit-learn's 'auto'."""
_GROUPS = 4


def statistics_of(wave_N: np.ndarray) -> np.ndarray:
    """(dimensions,) float64 statistics of one utterance, from (samples,) float32 at 16 kHz.

    Raises:
        MeasurementError: librosa is not installed.
    """
    try:
        import librosa  # pyright: ignore[reportMissingImports]  # of the extra bench
    except ImportError as e:
        raise MeasurementError("the floor needs librosa: pip install '.[bench]'") from e
    # A window must fit, and differences need nine frames.
    wave_N = np.pad(wave_N, (0, max(0, _WINDOW + 9 * _HOP - len(wave_N))))
    mfcc_DT = librosa.feature.mfcc(
        y=wave_N, sr=RATE_HZ, n_mfcc=20, n_fft=_WINDOW, win_length=400, hop_length=_HOP
    )
    rms_T = librosa.feature.rms(y=wave_N, frame_length=_WINDOW, hop_length=_HOP)[0]
    low_hz, high_hz = _F0_HZ
    f0_T = librosa.yin(
        wave_N, fmin=low_hz, fmax=high_hz, sr=RATE_HZ, frame_length=_WINDOW, hop_length=_HOP
    )
    # Frames without voice give F0 at random: only the louder half is used.
    loud_T = rms_T[: len(f0_T)] >= np.median(rms_T)
    pitch_T = 12 * np.log2(f0_T[: len(loud_T)][loud_T] / low_hz)
    delta_DT = librosa.feature.delta(mfcc_DT)
    level_T = 20 * np.log10(rms_T + 1e-5)
    curves = [*mfcc_DT, *delta_DT, level_T, pitch_T, np.diff(pitch_T)]
    return np.concatenate([_summary(np.asarray(curve, np.float64)) for curve in curves])


def _summary(curve_T: np.ndarray) -> np.ndarray:
    if not len(curve_T):
        return np.zeros(2 + len(_QUANTILES))
    return np.array([curve_T.mean(), curve_T.std(), *np.quantile(curve_T, _QUANTILES)])


def predictions_of(corpus: Artifact, fold: Fold, emotions: Sequence[str]) -> list[tuple[str, str]]:
    """(utterance id, predicted emotion) of each test utterance of ``fold``, by id."""
    training = training_utterances(corpus, fold.training_speakers())
    test = Utterances(corpus, fold.speakers("test"), fold.utterance_ids("test"))
    reader = AudioReader(corpus)
    x_UD, rows = _matrix(reader, training)
    speakers = np.array([row.speaker for row in rows])
    search = _search(x_UD.shape[1], speakers)
    search.fit(x_UD, [emotions.index(row.emotion) for row in rows], groups=speakers)
    print(f"{fold.name}: support vector machine with {search.best_params_}", flush=True)
    test_UD, test_rows = _matrix(reader, test)
    predicted = search.predict(test_UD)
    pairs = zip(test_rows, predicted, strict=True)
    return [(row.utterance_id, emotions[int(number)]) for row, number in pairs]


def _matrix(reader: AudioReader, utterances: Utterances) -> tuple[np.ndarray, tuple[IndexRow, ...]]:
    rows = utterances.rows(range(len(utterances)))
    waves = (reader.samples(row).astype(np.float32) / 32768 for row in rows)
    return np.stack([statistics_of(wave_N) for wave_N in waves]), rows


def _search(dimensions: int, speakers: np.ndarray) -> GridSearchCV:
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    grid = _GRID | {"svc__gamma": tuple(g / dimensions for g in _GRID["svc__gamma"])}
    groups = min(_GROUPS, len(set(speakers)))
    return GridSearchCV(
        make_pipeline(StandardScaler(), SVC(class_weight="balanced")),
        grid,
        scoring="balanced_accuracy",
        cv=GroupKFold(groups),
    )

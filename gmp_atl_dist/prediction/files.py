"""Files of predictions: CSV, JSON, JSON lines or Parquet. Each is written as results come.

A file appears under its name when it is complete. Until then it has a temporary name in the same folder.
What was written before an interruption is kept as ``NAME.partial.SUFFIX``, so nobody takes it for the whole.

CSV and Parquet have one row for each recording (``part`` = ``whole``) and one for each of its windows
(``part`` = ``window``). JSON has one object per recording.
"""

from __future__ import annotations

import csv
import json
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.prediction.results import EmotionSpan, RecordingPrediction

_ROW_GROUP_ROWS = 4096
_DIGITS = 6


def prediction_schema(emotions: Sequence[str]) -> pa.Schema:
    """The columns of CSV and Parquet, with ``p_EMOTION`` for each class.

    A bad recording has nulls, and the reason in ``error``.
    """
    return pa.schema(
        [
            pa.field("file", pa.string(), nullable=False),
            pa.field("part", pa.string(), nullable=False),
            pa.field("start_s", pa.float64()),
            pa.field("end_s", pa.float64()),
            pa.field("emotion", pa.string()),
            pa.field("probability", pa.float64()),
            *(pa.field(f"p_{emotion}", pa.float64()) for emotion in emotions),
            pa.field("notes", pa.string(), nullable=False),
            pa.field("error", pa.string(), nullable=False),
        ]
    )


class PredictionFile(ABC):
    """A file in the making. Use :func:`open_predictions`.

    Attributes:
        written: the number of recordings so far.
    """

    def __init__(self, path: Path, emotions: Sequence[str]) -> None:
        self._path, self._emotions = path, tuple(emotions)
        self._temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
        self.written = 0

    def add(self, result: RecordingPrediction) -> None:
        """Write one recording."""
        self._write(result)
        self.written += 1

    def finish(self) -> Path:
        """Close the file and give it its name, over an older one."""
        self._close()
        os.replace(self._temporary, self._path)
        return self._path

    def keep_partial(self) -> Path | None:
        """Close the file, and keep it as ``NAME.partial.SUFFIX``; None if nothing was written."""
        with suppress(OSError, pa.ArrowException):
            self._close()
            if self.written:
                partial = self._path.with_name(f"{self._path.stem}.partial{self._path.suffix}")
                os.replace(self._temporary, partial)
                return partial
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)
        return None

    @abstractmethod
    def _write(self, result: RecordingPrediction) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


class _Csv(PredictionFile):
    def __init__(self, path: Path, emotions: Sequence[str]) -> None:
        super().__init__(path, emotions)
        self._file = self._temporary.open("x", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(prediction_schema(emotions).names)

    def _write(self, result: RecordingPrediction) -> None:
        for row in table_rows(result, self._emotions):
            self._rows.writerow(_short(value) for value in row)

    def _close(self) -> None:
        self._file.close()


class _JsonLines(PredictionFile):
    _before, _between, _after = "", "", ""

    def __init__(self, path: Path, emotions: Sequence[str]) -> None:
        super().__init__(path, emotions)
        self._file = self._temporary.open("x", encoding="utf-8")
        self._file.write(self._before)

    def _write(self, result: RecordingPrediction) -> None:
        text = json.dumps(json_object(result), ensure_ascii=False)
        self._file.write(f"{self._between if self.written else ''}{text}{self._end}")

    _end = "\n"

    def _close(self) -> None:
        if not self._file.closed:
            self._file.write(self._after)
            self._file.close()


class _Json(_JsonLines):
    _before, _between, _after, _end = "[\n", ",\n", "\n]\n", ""


class _Parquet(PredictionFile):
    def __init__(self, path: Path, emotions: Sequence[str]) -> None:
        super().__init__(path, emotions)
        self._schema = prediction_schema(emotions)
        self._temporary.touch(exist_ok=False)
        self._writer = pq.ParquetWriter(self._temporary, self._schema)
        self._rows: list[tuple[object, ...]] = []

    def _write(self, result: RecordingPrediction) -> None:
        self._rows += table_rows(result, self._emotions)
        if len(self._rows) >= _ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows = []

    def _close(self) -> None:
        self._flush()
        self._writer.close()


_FORMATS: dict[str, type[PredictionFile]] = {
    ".csv": _Csv,
    ".json": _Json,
    ".jsonl": _JsonLines,
    ".parquet": _Parquet,
}


def check_output(path: Path) -> None:
    """Raises ConfigError where ``path`` cannot be an output file: suffix, folder, or a URI."""
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--out {path}: use a file that ends in {', '.join(_FORMATS)}")
    if ":/" in str(path):
        raise ConfigError(f"--out {path}: is no path of this machine; write a file and copy it")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigError(f"--out {path}: is a folder, or its folder does not exist")


@contextmanager
def open_predictions(path: Path, emotions: Sequence[str]) -> Iterator[PredictionFile]:
    """A file in the format of its suffix. The caller calls ``finish`` or ``keep_partial``.

    Raises:
        ConfigError: see :func:`check_output`.
        ArtifactError: the file cannot be written.
    """
    check_output(path)
    made: PredictionFile | None = None
    try:
        made = _FORMATS[path.suffix.lower()](path, emotions)
        yield made
    except (OSError, pa.ArrowException) as e:
        if made is not None:
            made.keep_partial()
        raise ArtifactError(
            f"--out {path}: cannot be written ({e}); check room and permissions"
        ) from e


def table_rows(result: RecordingPrediction, emotions: Sequence[str]) -> list[tuple[object, ...]]:
    """The rows of one recording, in the order of :func:`prediction_schema`."""
    file, notes, error = _text(result.file), " ".join(result.notes), _text(result.error)
    if result.verdict is None:
        empty = (None,) * (4 + len(emotions))
        return [(file, "whole", *empty, notes, error)]
    rows = [("whole", result.verdict, notes), *(("window", w, "") for w in result.windows)]
    return [
        (
            *(file, part, span.start_s, span.end_s, span.emotion, span.probability),
            *(span.probabilities[emotion] for emotion in emotions),
            *(row_notes, error),
        )
        for part, span, row_notes in rows
    ]


def json_object(result: RecordingPrediction) -> dict[str, object]:
    """One recording: file, duration, emotion, probabilities, windows if there are any, notes, error."""
    if result.verdict is None:
        return {"file": _text(result.file), "error": _text(result.error)}
    values = _span_object(result.verdict)
    values.pop("start_s")
    line: dict[str, object] = {
        "file": _text(result.file),
        "duration_s": values.pop("end_s"),
        **values,
    }
    if result.windows:
        line["windows"] = [_span_object(window) for window in result.windows]
    return line | {"notes": list(result.notes)}


def _span_object(span: EmotionSpan) -> dict[str, object]:
    return {
        "start_s": span.start_s,
        "end_s": span.end_s,
        "emotion": span.emotion,
        "probability": span.probability,
        "probabilities": span.probabilities,
    }


def _short(value: object) -> object:
    return f"{value:.{_DIGITS}f}" if isinstance(value, float) else value


def _text(name: str) -> str:
    """Names of files need not be Unicode; what is not is written as an escape."""
    return name.encode("utf-8", "backslashreplace").decode()

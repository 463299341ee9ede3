"""Lhotse manifests: cuts, or recordings and supervisions, that refer to audio files and segments.

Layout: ``*cuts*.jsonl`` or ``.jsonl.gz``; where there is none, ``*recordings*`` and ``*supervisions*`` of the
same suffixes. Each supervision becomes an utterance: a segment of the audio file of its recording. Lhotse is
not needed.

Fields of a supervision: speaker, gender, and in ``custom``: emotion, session, split. ``corpus.columns`` maps
other names, with dots for nested ones: ``columns = { emotion = "custom.emo" }``. The id is that of the cut,
or of the supervision where a cut has several. Without a split, it is that of the manifest's name, if it has
one (``cuts_train.jsonl.gz``).

Audio files lie below ``runtime.corpus``. Relative paths are relative to it. Absolute ones lie below it, or
below ``corpus.audio_root``, the folder in which the corpus lay when the manifest was written.

Known faults:
  - Only ``MonoCut`` and ``MultiCut`` of files are read. Mixed and padded cuts, transforms (speed, reverb),
    commands, addresses and audio in memory are named problems: a command of a manifest is never run.
  - A cut that takes one channel of several is a named problem; split the recording into its channels.
  - Lhotse Shar has its audio in separate tar files, which its cuts do not name. Export it as WebDataset, or
    with recordings on disk.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import Card
from gmp_atl_dist.corpora.fields import (
    LABELS,
    columns_of,
    field_text,
    make_utterance,
    split_of_path,
)
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

_MANIFEST = re.compile(r"(?:.*/)?[^/]*(?P<kind>cuts|recordings|supervisions)[^/]*\.jsonl(?:\.gz)?")
_USUAL = {name: f"custom.{name}" for name in ("emotion", "session", "split")}
_PLAIN_CUTS = ("MonoCut", "MultiCut")
# Times are sums of numbers that were rounded when the manifest was written.
_TOLERANCE_S = 1e-3

Json: TypeAlias = "Mapping[str, object]"


class _Refused(Exception):
    """Why an item cannot be read."""


@dataclass(frozen=True)
class Lhotse:
    """Adapter of manifests as JSON lines."""

    name: ClassVar[str] = "lhotse"
    default_emotions: ClassVar[tuple[str, ...]] = ()
    card: ClassVar[Card] = Card(
        title="",
        languages="any",
        speakers="any",
        utterances="any",
        licence="that of the corpus",
        example="cuts.jsonl.gz",
        summary="manifests of Lhotse: cuts, or recordings and supervisions",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All supervisions. A problem names each item of a manifest that cannot be read.

        Raises:
            ConfigError: ``corpus.columns`` is not valid.
            CorpusError: there is no manifest, or one is damaged.
        """
        columns = columns_of(config, [name for name in LABELS if not name.endswith("_s")], _USUAL)
        manifests: dict[str, list[str]] = {"cuts": [], "recordings": [], "supervisions": []}
        for entry in source.list():
            match = _MANIFEST.fullmatch(entry.path)
            if match:
                manifests[match["kind"]].append(entry.path)
        problems: list[Problem] = []
        if manifests["cuts"]:
            pieces = _of_cuts(source, manifests["cuts"], problems)
        elif manifests["recordings"] and manifests["supervisions"]:
            pieces = _of_supervisions(source, manifests, problems)
        else:
            raise CorpusError(
                f"{source.uri}: holds no manifest such as cuts.jsonl.gz, or recordings.jsonl.gz and "
                f"supervisions.jsonl.gz; set runtime.corpus to the folder that has them"
            )
        utterances: list[Utterance] = []
        for item, name, piece in pieces:
            values = {
                ours: field_text(piece.supervision, theirs) for ours, theirs in columns.items()
            }
            if "id" not in config.columns:
                values["id"] = name
            made = make_utterance(
                values | piece.times(), piece.path, name, split_of_path(piece.manifest)
            )
            if isinstance(made, Utterance):
                utterances.append(made)
            else:
                problems.extend(Problem(item, reason) for reason in made)
        return utterances, problems


@dataclass(frozen=True)
class _Piece:
    """A supervision, and the segment of a file that it is."""

    manifest: str
    supervision: Json
    path: str
    start_s: float
    end_s: float
    whole_s: float

    def times(self) -> dict[str, str]:
        """As text; none where the segment is the whole recording."""
        begins = self.start_s <= _TOLERANCE_S
        ends = self.end_s >= self.whole_s - _TOLERANCE_S
        start = "" if begins else repr(round(self.start_s, 6))
        return {"start_s": start, "end_s": "" if ends else repr(round(self.end_s, 6))}


def _of_cuts(
    source: Store, paths: Sequence[str], problems: list[Problem]
) -> Iterator[tuple[str, str, _Piece]]:
    for path in paths:
        for item, cut in _lines(source, path, problems):
            try:
                kind = str(cut.get("type", "MonoCut"))
                if kind not in _PLAIN_CUTS:
                    raise _Refused(f"is a {kind}; known are {', '.join(_PLAIN_CUTS)}")
                supervisions = _objects(cut, "supervisions")
                if not supervisions:
                    raise _Refused("has no supervision, so no label; remove it")
                start, duration = _number(cut, "start"), _number(cut, "duration")
                for supervision in supervisions:
                    first = max(0.0, _number(supervision, "start"))
                    last = min(duration, first + _number(supervision, "duration"))
                    piece = _piece(
                        path,
                        _object(cut, "recording"),
                        supervision,
                        cut.get("channel"),
                        start + first,
                        start + last,
                    )
                    name = cut if len(supervisions) == 1 else supervision
                    yield item, field_text(name, "id"), piece
            except _Refused as e:
                problems.append(Problem(f"{item} (id {field_text(cut, 'id')!r})", str(e)))


def _of_supervisions(
    source: Store, manifests: Mapping[str, Sequence[str]], problems: list[Problem]
) -> Iterator[tuple[str, str, _Piece]]:
    recordings: dict[str, Json] = {}
    for path in manifests["recordings"]:
        recordings |= {field_text(r, "id"): r for _, r in _lines(source, path, problems)}
    for path in manifests["supervisions"]:
        for item, supervision in _lines(source, path, problems):
            try:
                name = field_text(supervision, "recording_id")
                if name not in recordings:
                    raise _Refused(f"its recording {name!r} is in no manifest; add it")
                start = _number(supervision, "start")
                end = start + _number(supervision, "duration")
                channel = supervision.get("channel")
                piece = _piece(path, recordings[name], supervision, channel, start, end)
                yield item, field_text(supervision, "id"), piece
            except _Refused as e:
                problems.append(Problem(f"{item} (id {field_text(supervision, 'id')!r})", str(e)))


def _piece(
    manifest: str, recording: Json, supervision: Json, channel: object, start_s: float, end_s: float
) -> _Piece:
    if recording.get("transforms"):
        raise _Refused("its recording has transforms; write the transformed audio to a file")
    sources = _objects(recording, "sources")
    if len(sources) != 1 or sources[0].get("type") != "file":
        kinds = ", ".join(str(s.get("type")) for s in sources) or "none"
        raise _Refused(f"its recording must have one source of type file, and has {kinds}")
    present = sources[0].get("channels")
    asked = channel if isinstance(channel, list) else [channel]
    if channel is not None and isinstance(present, list) and set(asked) != set(present):
        raise _Refused(f"takes channel {channel} of {present}; split the recording into channels")
    path = field_text(sources[0], "source")
    return _Piece(manifest, supervision, path, start_s, end_s, _number(recording, "duration"))


def _lines(source: Store, path: str, problems: list[Problem]) -> Iterator[tuple[str, Json]]:
    """The objects of a manifest, each with its place.

    Raises:
        CorpusError: a compressed manifest is damaged or cut short.
    """
    plain = io.BytesIO(source.read(path))
    lines = gzip.GzipFile(fileobj=plain) if path.endswith(".gz") else plain
    try:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            item = f"{path}: line {number}"
            try:
                value = json.loads(line)
            except ValueError as e:
                problems.append(Problem(item, f"is no JSON ({e}); write the manifest again"))
                continue
            if isinstance(value, dict):
                yield item, value
            else:
                problems.append(Problem(item, "is no JSON object; write the manifest again"))
    except (OSError, EOFError) as e:
        raise CorpusError(f"{source.uri}/{path}: is damaged ({e}); write the manifest again") from e


def _object(item: Json, name: str) -> Json:
    value = item.get(name)
    if not isinstance(value, dict):
        raise _Refused(f"lacks {name}; write the manifest again, with recordings in its cuts")
    return value


def _objects(item: Json, name: str) -> list[Json]:
    value = item.get(name) or []
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise _Refused(f"its {name} is no list of objects; write the manifest again")
    return value


def _number(item: Json, name: str) -> float:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused(
            f"its {name} is {value!r} and no number of seconds; write the manifest again"
        )
    return float(value)

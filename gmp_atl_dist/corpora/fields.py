"""Fields of a record, such as a JSON object: which of them are ours, and the utterance that they make.

``corpus.columns`` maps our name to theirs, with dots for nested fields: ``emotion = "custom.emotion"``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import cast

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.checks import spelling
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.records import Gender, Split, Utterance

LABELS = ("id", "speaker", "emotion", "gender", "session", "split", "start_s", "end_s")
"""Our names."""

SPLITS: Mapping[str, Split] = {
    "train": "train",
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "eval"), "test"),
}


def columns_of(
    config: CorpusConfig, names: Collection[str], usual: Mapping[str, str]
) -> dict[str, str]:
    """Our name -> theirs, for ``names``: as configured, else as usual in this format, else our own.

    Raises:
        ConfigError: ``corpus.columns`` has a name that is not ours.
    """
    problems = [
        f"corpus.columns.{name}: is not a known column; known are {', '.join(names)}"
        for name in config.columns
        if name not in names
    ]
    if problems:
        raise ConfigError.of_all("corpus.columns is not valid:", problems)
    return {name: config.columns.get(name, usual.get(name, name)) for name in names}


def split_of_path(path: str) -> str:
    """The split that the names of a file and its folders tell, as in ``data/train-00000.tar``; else ""."""
    words = [word for word in re.split(r"[/_.-]", path) if word in SPLITS]
    return words[-1] if words else ""


def field_text(record: object, name: str) -> str:
    """A field as text without surrounding blanks; "" where it is absent, null or no single value."""
    value = record
    for step in name.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).strip()


def make_utterance(
    values: Mapping[str, str], path: str, default_id: str, default_split: str = ""
) -> Utterance | list[str]:
    """The utterance of a record, or all reasons why the record is bad.

    Args:
        values: by our names; "" where a field is absent.
        path: of the audio.
        default_id: the id where the record has none.
        default_split: the split where the record has none.
    """
    reasons: list[str] = []
    if not values.get("emotion"):
        reasons.append("has no emotion; fill it in, or name its field in corpus.columns.emotion")
    split = spelling(values.get("split") or default_split)
    if split and split not in SPLITS:
        reasons.append(f"split {split!r} is not known; known are {', '.join(SPLITS)}")
    times: dict[str, float | None] = {"start_s": None, "end_s": None}
    for name in times:
        text = values.get(name, "")
        if not text:
            continue
        try:
            times[name] = float(text)
        except ValueError:
            reasons.append(f"{name} {text!r} is not a number of seconds")
            continue
        if not math.isfinite(float(text)):
            reasons.append(f"{name} {text!r} is not a finite number of seconds")
    if reasons:
        return reasons
    return Utterance(
        utterance_id=values.get("id") or default_id,
        path=path,
        speaker=values.get("speaker", ""),
        gender=cast("Gender", values.get("gender", "")),
        emotion=spelling(values["emotion"]),
        session=values.get("session", ""),
        split=SPLITS[split] if split else "",
        start_s=times["start_s"],
        end_s=times["end_s"],
    )

"""A folder of audio whose paths say who speaks and which emotion it is.

``corpus.options.pattern`` is a path with names in braces, relative to ``runtime.corpus``:
``"{speaker}/{emotion}/*.wav"`` or ``"audio/{speaker}_{emotion}_*.wav"``. Names: ``speaker`` and ``emotion``
(needed), ``gender``, ``session``, ``split``. A name in braces stands for the shortest text without a slash,
``*`` for any text without a slash, and ``**`` for any number of folders. Letters count as written.

The id of an utterance is its path without suffix. An emotion is spelled in lower case, and may be renamed in
``corpus.merge``.

Known faults: a file that does not match is a bad item, and so is any file that is neither audio nor a text, a
table, a licence or a hidden file. A pattern that can be read in two ways takes the shortest speaker first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.base import Listed
from gmp_atl_dist.corpora.card import Card
from gmp_atl_dist.corpora.checks import spelling
from gmp_atl_dist.corpora.fields import SPLITS
from gmp_atl_dist.corpora.file_names import AUDIO_SUFFIXES, find_recordings
from gmp_atl_dist.corpora.video import VIDEO_SUFFIXES
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.records import Gender, Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

_NEEDED = ("speaker", "emotion")
_NAMES = (*_NEEDED, "gender", "session", "split")
_EXAMPLE = '"{speaker}/{emotion}/*.wav"'
_PIECE = re.compile(r"\{(?P<name>[^{}]*)\}|(?P<deep>\*\*/)|(?P<any>\*)|(?P<text>[^{*]+|.)")


@dataclass(frozen=True)
class Folder:
    """Adapter of any folder of audio with a pattern."""

    name: ClassVar[str] = "folder"
    default_emotions: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[Mapping[str, str]] = {"pattern": f"of paths, such as {_EXAMPLE}"}
    card: ClassVar[Card] = Card(
        title="",
        languages="any",
        speakers="any",
        utterances="any",
        licence="that of the corpus",
        example="anna/happy/1.wav",
        summary="a folder of audio; its paths say speaker and emotion",
    )

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All audio files that match; a problem names each file that does not.

        Raises:
            ConfigError: there is no pattern, or it is not valid.
            CorpusError: there is no recording, as in a folder that does not exist.
        """
        given = str(config.options.get("pattern", ""))
        pattern = compile_pattern(given)
        recordings, problems = find_recordings(source, (*AUDIO_SUFFIXES, *VIDEO_SUFFIXES))
        if not recordings and not problems:
            raise CorpusError(
                f"{source.uri}: is not there or holds no recording; set runtime.corpus to the folder with "
                f"files like {self.card.example}"
            )
        utterances: list[Utterance] = []
        for path in recordings:
            match = pattern.fullmatch(path)
            if match is None:
                reason = (
                    f"does not match corpus.options.pattern {given!r}; rename it or move it away"
                )
                problems.append(Problem(path, reason))
                continue
            made = _utterance(path, match.groupdict())
            if isinstance(made, Utterance):
                utterances.append(made)
            else:
                problems.append(Problem(path, made))
        return utterances, problems


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern.

    Raises:
        ConfigError: it is empty, has an unknown name or one twice, or lacks speaker or emotion.
    """
    key = "corpus.options.pattern"
    if not pattern:
        raise ConfigError(f"{key}: is missing; the adapter folder needs one, such as {_EXAMPLE}")
    parts: list[str] = []
    names: list[str] = []
    for piece in _PIECE.finditer(pattern):
        name = piece["name"]
        if name is not None:
            if name not in _NAMES or name in names:
                fault = "occurs twice" if name in names else "is not known"
                raise ConfigError(f"{key}: {{{name}}} {fault}; known are {', '.join(_NAMES)}")
            names.append(name)
            parts.append(f"(?P<{name}>[^/]+?)")
        elif piece["deep"]:
            parts.append("(?:[^/]+/)*")
        else:
            parts.append("[^/]*" if piece["any"] else re.escape(piece["text"]))
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise ConfigError(
            f"{key}: {pattern!r} lacks {' and '.join(f'{{{name}}}' for name in missing)}; write a path "
            f"such as {_EXAMPLE}"
        )
    return re.compile("".join(parts))


def _utterance(path: str, parts: Mapping[str, str]) -> Utterance | str:
    split = spelling(parts.get("split", ""))
    if split and split not in SPLITS:
        return f"split {parts['split']!r} is not known; known are {', '.join(SPLITS)}"
    return Utterance(
        utterance_id=path.rpartition(".")[0],
        path=path,
        speaker=parts["speaker"],
        gender=cast("Gender", parts.get("gender", "")),
        emotion=spelling(parts["emotion"]),
        session=parts.get("session", ""),
        split=SPLITS[split] if split else "",
    )

"""The protocol of corpus adapters, and the checks that all corpora go through.

An adapter lists the utterances of a corpus. It is found by its name in the entry-point group
``gmp_atl_dist.corpora``, so a new corpus is one module in any package. The entry point names an
object, or a class without arguments, that implements :class:`Corpus`. Adapters only read labels. This
module checks that audio files exist, ids are unique and labels are known. Bad items are left out, and
all of them are named. More than ``corpus.max_bad_fraction`` bad items are an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.audio_paths import below_corpus, is_absolute
from gmp_atl_dist.corpora.checks import (
    WITHOUT_GENDER,
    check_utterance,
    refuse_too_many_bad,
    spelling,
    stamp_of,
)
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.plugins import PluginGroup
from gmp_atl_dist.records import Problem, Utterance
from gmp_atl_dist.store.filesystem import Entry, Store

ADAPTERS = PluginGroup(
    "gmp_atl_dist.corpora",
    "corpus.adapter",
    {
        "iemocap": "gmp_atl_dist.corpora.iemocap:Iemocap",
        "synthetic": "gmp_atl_dist.corpora.iemocap:Iemocap",
        "table": "gmp_atl_dist.corpora.table:Table",
    },
)


Listed: TypeAlias = tuple[list[Utterance], list[Problem]]
"""The utterances of a corpus, and the items that cannot be read."""


@runtime_checkable
class Corpus(Protocol):
    """An adapter. If ``default_emotions`` is empty, the classes are the emotions that it lists."""

    @property
    def name(self) -> str: ...

    @property
    def default_emotions(self) -> tuple[str, ...]: ...

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All labelled utterances of the corpus at ``source``, and the items that cannot be read."""
        ...


@dataclass(frozen=True)
class CorpusListing:
    """A checked corpus.

    Attributes:
        utterances: sorted by id; paths, emotions and genders in canonical spelling.
        sizes: bytes of each audio file that is used, by path.
        stamp: sha256 that changes when a used file or a row of ``utterances`` changes.
        emotions: the class list, in order.
        problems: the reasons why utterances were left out; one utterance may have several.
        num_bad: number of utterances that were left out because of ``problems``.
        num_ignored: number of utterances that were left out because their emotion is not a class
            and ``corpus.ignore_other_emotions`` is set.
    """

    utterances: tuple[Utterance, ...]
    sizes: dict[str, int]
    stamp: str
    emotions: tuple[str, ...]
    problems: tuple[Problem, ...]
    num_bad: int = 0
    num_ignored: int = 0

    @property
    def num_listed(self) -> int:
        """The number of good and bad utterances, without the ignored ones."""
        return len(self.utterances) + self.num_bad


def adapter_names() -> tuple[str, ...]:
    """The names of all adapters that ``corpus.adapter`` can select, sorted."""
    return ADAPTERS.names()


def find_adapter(name: str) -> Corpus:
    """The adapter with this name.

    Raises:
        ConfigError: it does not exist, cannot be loaded, or does not implement :class:`Corpus`.
    """
    loaded = ADAPTERS.load(name)
    try:
        adapter = loaded() if isinstance(loaded, type) else loaded
    except Exception as e:
        raise ADAPTERS.not_loaded(name, e) from e
    if not isinstance(adapter, Corpus):
        raise ConfigError(
            f"corpus.adapter: {name!r} has type {type(adapter).__name__} and lacks name, "
            f"default_emotions or list(source, config); see gmp_atl_dist.corpora.base.Corpus"
        )
    return adapter


def read_corpus(
    config: CorpusConfig,
    source: Store,
    *,
    gender_needed: bool = True,
    adapter: Corpus | None = None,
    every_class: bool = True,
) -> CorpusListing:
    """List the corpus at ``source`` and check every utterance.

    ``adapter`` replaces the one that ``config`` names. Without ``every_class``, a class may have no
    utterance, and the listing has the classes that occur: this is for one of several corpora.

    An utterance is bad if its audio file is missing or empty, its path leaves the corpus, its id is
    empty or duplicate, its gender or emotion is unknown, it has no speaker, or its segment ends
    before it begins. Without ``gender_needed``, an unknown gender is no fault.

    Raises:
        ConfigError: the adapter, the class list or the table's columns are wrong, or the corpus tells
            no gender and it is needed.
        CorpusError: more than ``max_bad_fraction`` of the items are bad, or no utterance is left.
    """
    adapter = adapter or find_adapter(config.adapter)
    listed, problems = adapter.list(source, config)
    merge = {spelling(old): spelling(new) for old, new in config.merge.items()}
    if gender_needed and listed and not any(u.gender for u in listed):
        raise ConfigError(
            f"{source.uri}: tells no gender of any of its {len(listed)} utterances. {WITHOUT_GENDER}"
        )
    merged = [_merged(_located(u, source, config), merge) for u in listed]
    emotions = _class_list(config, adapter.default_emotions, merge, merged)
    known = {spelling(emotion): emotion for emotion in emotions}
    wanted = [u for u in merged if u.emotion in known or not config.ignore_other_emotions]
    files = {entry.path: entry for entry in source.list()} if wanted else {}
    num_unread = len({p.item for p in problems})
    kept, unusable = _check_all(wanted, known, files, gender_needed)
    problems += unusable
    num_listed = num_unread + len(wanted)
    # Not counted by names, because copies with the same id, or without one, have equal names.
    num_bad = num_listed - len(kept)
    refuse_too_many_bad(source.uri, num_bad, num_listed, config.max_bad_fraction, problems)
    if not kept:
        raise CorpusError.of_all(
            f"{source.uri}: the adapter {config.adapter!r} listed {len(merged)} utterances, and none "
            f"of them is usable; check runtime.corpus, corpus.adapter and corpus.emotions",
            [str(p) for p in problems],
        )
    if every_class:
        _refuse_empty_classes(config, kept, merged)
    else:
        occurring = {u.emotion for u in kept}
        emotions = tuple(emotion for emotion in emotions if emotion in occurring)
    kept.sort(key=lambda u: u.utterance_id)
    used = [files[path] for path in sorted({u.path for u in kept})]
    return CorpusListing(
        utterances=tuple(kept),
        sizes={entry.path: entry.size for entry in used},
        stamp=stamp_of(used, kept),
        emotions=emotions,
        problems=tuple(problems),
        num_bad=num_bad,
        num_ignored=len(merged) - len(wanted),
    )


def _check_all(
    utterances: Iterable[Utterance],
    known: Mapping[str, str],
    files: Mapping[str, Entry],
    gender_needed: bool,
) -> tuple[list[Utterance], list[Problem]]:
    """The good utterances, and the problems of the others."""
    kept: list[Utterance] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for u in utterances:
        checked, reasons = check_utterance(u, known, files, seen, gender_needed=gender_needed)
        seen.add(u.utterance_id)
        if reasons:
            item = f"utterance {u.utterance_id!r}"
            problems.extend(Problem(item, reason) for reason in reasons)
        else:
            kept.append(checked)
    return kept, problems


def _located(utterance: Utterance, source: Store, config: CorpusConfig) -> Utterance:
    """With an absolute path made relative to the corpus, where it lies below it."""
    if not is_absolute(utterance.path):
        return utterance
    path = below_corpus(utterance.path, source.uri, config.audio_root)
    return utterance if path is None else replace(utterance, path=path)


def _merged(utterance: Utterance, merge: dict[str, str]) -> Utterance:
    """Rename the emotion once: the new name is not looked up in ``merge`` again."""
    emotion = spelling(utterance.emotion)
    emotion = merge.get(emotion, emotion)
    return utterance if emotion == utterance.emotion else replace(utterance, emotion=emotion)


def _class_list(
    config: CorpusConfig,
    default: tuple[str, ...],
    merge: dict[str, str],
    utterances: Sequence[Utterance],
) -> tuple[str, ...]:
    if not config.emotions:
        if not default:
            return tuple(sorted({u.emotion for u in utterances if u.emotion}))
        defaults = [spelling(emotion) for emotion in default]
        return tuple(dict.fromkeys(merge.get(emotion, emotion) for emotion in defaults))
    problems: list[str] = []
    spelled = [spelling(emotion) for emotion in config.emotions]
    for i, emotion in enumerate(spelled):
        if not emotion:
            problems.append(f"corpus.emotions[{i}]: is empty; name an emotion")
        elif emotion in spelled[:i]:
            problems.append(f"corpus.emotions[{i}]: {emotion!r} is listed twice; list it once")
        if emotion in merge and merge[emotion] != emotion:
            problems.append(
                f"corpus.emotions[{i}]: {emotion!r} is renamed to {merge[emotion]!r} by "
                f"corpus.merge, so it never occurs; remove it from one of the two"
            )
    if problems:
        raise ConfigError.of_all("the class list is not valid:", problems)
    return config.emotions


def _refuse_empty_classes(
    config: CorpusConfig, kept: Sequence[Utterance], listed: Iterable[Utterance]
) -> None:
    """With ``ignore_other_emotions``, a misspelt class would silently leave out an emotion."""
    occurring = {u.emotion for u in kept}
    empty = [emotion for emotion in config.emotions if emotion not in occurring]
    if empty:
        raise ConfigError(
            f"corpus.emotions: no utterance has {', '.join(map(repr, empty))}; the corpus has "
            f"{', '.join(sorted({u.emotion for u in listed}))}"
        )

"""Reads a corpus by its adapter, with the checks that all corpora go through.

Audio files must exist, ids must be unique and labels known. Bad items are left out, and all of them are
named. More than ``corpus.max_bad_fraction`` bad items are an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.addresses import member_entries
from gmp_atl_dist.corpora.audio_paths import below_corpus, is_absolute
from gmp_atl_dist.corpora.base import Corpus, find_adapter
from gmp_atl_dist.corpora.canonical import NameForms, canonical_text, other_forms
from gmp_atl_dist.corpora.card import check_options
from gmp_atl_dist.corpora.checks import (
    WITHOUT_GENDER,
    check_utterance,
    refuse_too_many_bad,
    spelling,
    stamp_of,
)
from gmp_atl_dist.corpora.same_audio import same_segments
from gmp_atl_dist.corpora.speakers import speaker_notes
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.records import Note, Problem, Utterance
from gmp_atl_dist.store.filesystem import Entry, Store
from gmp_atl_dist.wording import counted


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
        notes: what is odd and leaves no utterance out, such as a speaker with two genders.
    """

    utterances: tuple[Utterance, ...]
    sizes: dict[str, int]
    stamp: str
    emotions: tuple[str, ...]
    problems: tuple[Problem, ...]
    num_bad: int = 0
    num_ignored: int = 0
    notes: tuple[Note, ...] = ()

    @property
    def num_listed(self) -> int:
        """The number of good and bad utterances, without the ignored ones."""
        return len(self.utterances) + self.num_bad


@dataclass(frozen=True)
class Labels:
    """The labels of a corpus, before its files are looked at.

    Attributes:
        utterances: of the classes, or of all emotions if ``ignore_other_emotions`` is unset; names of
            speakers, sessions and emotions in canonical form.
        emotions: the class list, in order.
        problems: the items that the adapter cannot read.
        notes: what is odd and leaves no utterance out.
        listed_emotions: every emotion that the adapter listed.
        num_listed: number of utterances that the adapter listed, the ignored ones among them.
    """

    utterances: list[Utterance]
    emotions: tuple[str, ...]
    problems: list[Problem]
    notes: list[Note]
    listed_emotions: frozenset[str]
    num_listed: int

    def checked(
        self, files: Mapping[str, Entry] | None, *, gender_needed: bool
    ) -> tuple[list[Utterance], list[Problem]]:
        """The good utterances, and the problems of the others; without ``files``, of labels alone."""
        known = {spelling(emotion): emotion for emotion in self.emotions}
        return _check_all(self.utterances, known, files, gender_needed)


def read_labels(
    config: CorpusConfig,
    source: Store,
    *,
    gender_needed: bool = True,
    adapter: Corpus | None = None,
) -> Labels:
    """What the adapter lists at ``source``, with names in canonical form and emotions merged.

    Raises:
        ConfigError: the adapter, the class list or the table's columns are wrong, or the corpus tells
            no gender and it is needed.
        CorpusError: the adapter cannot read the corpus.
    """
    adapter = adapter or find_adapter(config.adapter)
    check_options(config, getattr(adapter, "options", {}))
    listed, found = adapter.list(source, config)
    # A copy, because the adapter may keep its list; the objects of a large corpus are not held twice.
    utterances = list(listed)
    del listed
    notes = [p for p in found if isinstance(p, Note)]
    problems = [p for p in found if not isinstance(p, Note)]
    merge = {spelling(old): spelling(new) for old, new in config.merge.items()}
    if gender_needed and utterances and not any(u.gender for u in utterances):
        raise ConfigError(
            f"{source.uri}: tells no gender of any of its {len(utterances)} utterances. {WITHOUT_GENDER}"
        )
    forms = NameForms()
    for i, u in enumerate(utterances):
        utterances[i] = _merged(_located(_named(u, forms), source, config), merge)
    emotions = _class_list(config, adapter.default_emotions, merge, utterances)
    known = {spelling(emotion) for emotion in emotions}
    wanted = [u for u in utterances if u.emotion in known or not config.ignore_other_emotions]
    return Labels(
        utterances=wanted,
        emotions=emotions,
        problems=problems,
        notes=[*notes, *forms.notes()],
        listed_emotions=frozenset(u.emotion for u in utterances),
        num_listed=len(utterances),
    )


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
    empty or duplicate, its gender or emotion is unknown, it has no speaker, its segment ends before
    it begins, or the same segment has another speaker or emotion. Without ``gender_needed``, an
    unknown gender is no fault.

    Raises:
        ConfigError: the adapter, the class list or the table's columns are wrong, or the corpus tells
            no gender and it is needed.
        CorpusError: more than ``max_bad_fraction`` of the items are bad, or no utterance is left.
    """
    labels = read_labels(config, source, gender_needed=gender_needed, adapter=adapter)
    files = {entry.path: entry for entry in source.list()} if labels.utterances else {}
    files |= member_entries((u.path for u in labels.utterances), files)
    num_unread = len({p.item for p in labels.problems})
    kept, unusable = labels.checked(files, gender_needed=gender_needed)
    same = same_segments(kept)
    problems = [*labels.problems, *unusable, *same.problems(kept)]
    kept = [kept[i] for i in same.kept(kept)]
    num_listed = num_unread + len(labels.utterances)
    # Not counted by names, because copies with the same id, or without one, have equal names.
    num_bad = num_listed - len(kept)
    refuse_too_many_bad(source.uri, num_bad, num_listed, config.max_bad_fraction, problems)
    if not kept:
        raise CorpusError.of_all(
            f"{source.uri}: the adapter {config.adapter!r} listed "
            f"{counted(labels.num_listed, 'utterance')}, and none of them is usable; "
            f"check runtime.corpus, corpus.adapter and corpus.emotions",
            [str(p) for p in problems],
        )
    emotions = labels.emotions
    if every_class:
        _refuse_empty_classes(config, kept, labels.listed_emotions)
    else:
        occurring = {u.emotion for u in kept}
        emotions = tuple(emotion for emotion in emotions if emotion in occurring)
    kept.sort(key=lambda u: u.utterance_id)
    used = [files[path] for path in sorted({u.path for u in kept})]
    return CorpusListing(
        utterances=tuple(kept),
        # The paths of the utterances, so that those of the files need not stay.
        sizes={u.path: files[u.path].size for u in kept},
        stamp=stamp_of(used, kept),
        emotions=emotions,
        problems=tuple(problems),
        num_bad=num_bad,
        num_ignored=labels.num_listed - len(labels.utterances),
        notes=(*labels.notes, *speaker_notes(kept)),
    )


def _check_all(
    utterances: Iterable[Utterance],
    known: Mapping[str, str],
    files: Mapping[str, Entry] | None,
    gender_needed: bool,
) -> tuple[list[Utterance], list[Problem]]:
    """The good utterances, and the problems of the others."""
    kept: list[Utterance] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    forms = other_forms(files or ())
    for u in utterances:
        checked, reasons = check_utterance(
            u, known, files, seen, gender_needed=gender_needed, forms=forms
        )
        seen.add(canonical_text(u.utterance_id))
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


def _named(utterance: Utterance, forms: NameForms) -> Utterance:
    """With the names of speaker, session and split in canonical form; :func:`_merged` does the emotion."""
    u = utterance
    names = [forms.canonical(name, getattr(u, name)) for name in ("speaker", "session", "split")]
    forms.canonical("emotion", u.emotion)
    if names == [u.speaker, u.session, u.split]:
        return u
    return replace(u, speaker=names[0], session=names[1], split=names[2])


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
    config: CorpusConfig, kept: Sequence[Utterance], listed: Iterable[str]
) -> None:
    """With ``ignore_other_emotions``, a misspelt class would silently leave out an emotion."""
    occurring = {u.emotion for u in kept}
    empty = [emotion for emotion in config.emotions if emotion not in occurring]
    if empty:
        raise ConfigError(
            f"corpus.emotions: no utterance has {', '.join(map(repr, empty))}; the corpus has "
            f"{', '.join(sorted(listed))}"
        )

"""The sources of ``[[corpora]]``: how each is listed, and what belongs to all of them.

Within a run, ids, speakers and sessions begin with the name of their source. So two corpora never share a
speaker by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, cast

from gmp_atl_dist.config import AUDIO_FILES, NOBODY, CorpusConfig, RunConfig, SourceConfig
from gmp_atl_dist.corpora.base import Corpus, Listed, find_adapter
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.corpora.unlabelled import AudioFiles
from gmp_atl_dist.corpora.vad import SpeechCut
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.records import UNKNOWN_GENDER, Gender, Problem, Utterance, qualified
from gmp_atl_dist.store.filesystem import Store

UNLABELLED_EMOTION = "unlabelled"
"""What ``ingest`` of an unlabelled source stores as emotion. ``combine`` stores none."""
UNKNOWN_SPEAKER = "unknown"
"""Of an unlabelled source that tells no speaker: one group, which no fold tests on."""

ReadSource: TypeAlias = Callable[[CorpusConfig, Store], CorpusListing]


@dataclass(frozen=True)
class Unlabelled:
    """The recordings that another adapter lists, without their emotions."""

    inner: Corpus
    name: str = UNLABELLED_EMOTION
    default_emotions: tuple[str, ...] = (UNLABELLED_EMOTION,)

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        utterances, problems = self.inner.list(source, config)
        return [
            replace(
                u,
                emotion=UNLABELLED_EMOTION,
                speaker=u.speaker.strip() or UNKNOWN_SPEAKER,
                gender=u.gender or cast("Gender", UNKNOWN_GENDER),
                split="",
            )
            for u in utterances
        ], problems


def store_of(config: RunConfig, source: SourceConfig) -> Store:
    """Where a source lies."""
    return Store.open(config.runtime.corpora[source.name])


def cut_of(source: SourceConfig) -> SpeechCut | None:
    """How long recordings of a source are cut; None if they are refused."""
    if not source.vad:
        return None
    return SpeechCut(source.max_s, source.min_s, source.vad_max_s, source.vad_db)


def reader_of(config: RunConfig, source: SourceConfig) -> ReadSource:
    """Lists one source; for ``Ingest.read``. Picklable."""
    gender_needed = config.needs_gender
    if not source.is_labelled:
        gender_needed = config.needs_gender_of_unlabelled and not config.predicts_gender
    return partial(_read, source, gender_needed)


def _read(
    source: SourceConfig, gender_needed: bool, config: CorpusConfig, store: Store
) -> CorpusListing:
    """List ``source`` at ``store``.

    Raises:
        ConfigError, CorpusError: as of ``read_corpus``; they name the source.
    """
    try:
        if source.is_labelled:
            return read_corpus(config, store, gender_needed=gender_needed, every_class=False)
        inner = AudioFiles() if config.adapter == AUDIO_FILES else find_adapter(config.adapter)
        # Emotions are not read, so none can be renamed or left out.
        # The column that any table has stands in for that of emotions, which need not be there.
        columns = {**config.columns, "emotion": config.columns.get("id", "id")}
        plain = config.model_copy(
            update={"merge": {}, "ignore_other_emotions": False, "columns": columns}
        )
        listing = read_corpus(
            plain, store, gender_needed=False, adapter=Unlabelled(inner), every_class=False
        )
        if gender_needed:
            _refuse_unknown_gender(listing)
        return listing
    except (ConfigError, CorpusError) as e:
        raise type(e)(
            f"corpora, source {source.name} (its keys stand in [[corpora]], its place in "
            f"runtime.corpora.{source.name}): {e.message}"
        ) from e


def _refuse_unknown_gender(listing: CorpusListing) -> None:
    unknown = [u.utterance_id for u in listing.utterances if u.gender == UNKNOWN_GENDER]
    if unknown:
        raise ConfigError(
            f"the gender of {len(unknown)} of {len(listing.utterances)} unlabelled utterances is not "
            f"known, e.g. of {unknown[0]!r}. cluster.gender = 'by_gender' and cluster.balance = 'gender' "
            f"need it; raise warmup.gender_weight, so that the warmed-up model predicts it, or use neither"
        )


@dataclass(frozen=True)
class SourceListing:
    """A source as it is listed; ids, speakers and sessions begin with its name."""

    source: SourceConfig
    listing: CorpusListing

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """The utterances as the whole run knows them; those of unlabelled sources have no emotion."""
        return tuple(_qualified(u, self.source) for u in self.listing.utterances)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(f"{self.source.name}: {p.item}", p.reason) for p in self.listing.problems
        )


def list_source(config: RunConfig, source: SourceConfig, store: Store) -> SourceListing:
    """One source at ``store``, as ``ingest`` would list it.

    Raises:
        ConfigError, CorpusError: as of ``read_corpus``; they name the source.
    """
    read = reader_of(config, source)
    return SourceListing(source, read(source.corpus(config.corpus.emotions), store))


def list_sources(config: RunConfig) -> tuple[SourceListing, ...]:
    """Every source of ``[[corpora]]``, as ``ingest`` would list it.

    Raises:
        ConfigError: a class of ``corpus.emotions`` occurs in no source; or as of ``read_corpus``.
        CorpusError: as of ``read_corpus``.
    """
    found = tuple(list_source(config, s, store_of(config, s)) for s in config.corpora)
    refuse_conflicts(config, found)
    return found


def refuse_conflicts(config: RunConfig, found: Sequence[SourceListing]) -> None:
    """What is refused of all listed sources together.

    Raises:
        ConfigError: a class occurs in no source, or speakers may be the same people.
    """
    refuse_empty_classes(
        config.corpus.emotions, (f.listing.emotions for f in found if f.source.is_labelled)
    )
    refuse_shared_names(
        config.corpora, {f.source.name: {u.speaker for u in f.listing.utterances} for f in found}
    )


def refuse_empty_classes(emotions: Iterable[str], occurring: Iterable[Iterable[str]]) -> None:
    """Refuse classes that no labelled source has.

    Raises:
        ConfigError: names them.
    """
    known = {emotion for of_source in occurring for emotion in of_source}
    empty = [emotion for emotion in emotions if emotion not in known]
    if empty:
        raise ConfigError(
            f"corpus.emotions: no utterance of any source has {', '.join(map(repr, empty))}; remove it "
            f"there, or map a label to it in the merge of a source"
        )


def refuse_shared_names(
    sources: Sequence[SourceConfig], speakers: Mapping[str, Iterable[str]]
) -> None:
    """Refuse speakers of unlabelled speech who may be those of a labelled source, unless that is settled.

    Args:
        speakers: the speakers of each source, without its name before them.

    Raises:
        ConfigError: names them, and both ways to settle it.
    """
    known = {s.name: set(speakers[s.name]) for s in sources if s.is_labelled}
    problems: list[str] = []
    for source in sources:
        if source.is_labelled or source.speakers_of:
            continue
        told = set(speakers[source.name]) - {UNKNOWN_SPEAKER}
        for name, labelled in known.items():
            shared = sorted(told & labelled)
            if shared:
                problems.append(
                    f"{source.name} and {name} both have {', '.join(shared[:3])}"
                    f"{f' and {len(shared) - 3} more' if len(shared) > 3 else ''}: set speakers_of = "
                    f"'{name}' in {source.name} if these are the same people, else '{NOBODY}'"
                )
    if problems:
        raise ConfigError.of_all(
            "speakers of unlabelled speech may be people who are tested on:", problems
        )


def _qualified(u: Utterance, source: SourceConfig) -> Utterance:
    return replace(
        u,
        utterance_id=qualified(source.name, u.utterance_id),
        speaker=qualified(source.name, u.speaker),
        session=qualified(source.name, u.session),
        emotion=u.emotion if source.is_labelled else "",
    )

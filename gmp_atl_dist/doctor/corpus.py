"""The corpus: whether it can be reached, its labels read, its folds planned, and a few recordings exist.

``gmp-atl corpora check`` looks for all recordings, and ``ingest`` reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.addresses import file_of
from gmp_atl_dist.corpora.audio_paths import below_corpus, is_absolute
from gmp_atl_dist.corpora.checks import refuse_too_many_bad
from gmp_atl_dist.corpora.fold_plan import count_folds
from gmp_atl_dist.corpora.reading import Labels, read_labels
from gmp_atl_dist.corpora.speakers import speaker_notes
from gmp_atl_dist.doctor.deadline import BackgroundCall
from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.doctor.sources import check_sources
from gmp_atl_dist.doctor.storage import store_name
from gmp_atl_dist.doctor.storage_errors import explain
from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError
from gmp_atl_dist.records import Note, Problem, Utterance
from gmp_atl_dist.stages.planned_folds import folds_of_listing
from gmp_atl_dist.store.filesystem import Store, UnreadableError
from gmp_atl_dist.wording import counted

_CHECK = "corpus"
_SHOWN_FOLDS = 10


def check_corpus(config: RunConfig, timeout_s: float, labels_s: float) -> Iterator[Finding]:
    """List the labels with the adapter, for at most ``labels_s``, and look for three recordings."""
    if config.corpora:
        yield from check_sources(config, timeout_s, labels_s)
        return
    try:
        source = Store.open(config.runtime.corpus, timeout_s)
    except ArtifactError as e:
        name = f"runtime.corpus {config.runtime.corpus}"
        yield fatal(_CHECK, name, e.message, "name a folder, or an s3://, gs:// or az:// URI")
        return
    item = store_name(source)
    try:
        labels = BackgroundCall(lambda: _read(source, config)).result(labels_s)
        utterances = labels.listed.utterances
        sample = sorted({0, len(utterances) // 2, len(utterances) - 1}) if utterances else []
        given = [utterances[i].path for i in sample]
        paths = [_below(path, source, config) or path for path in given]
        missing = [path for path in paths if is_absolute(path) or not source.exists(file_of(path))]
    except TimeoutError:
        value = f"reading its labels took more than {labels_s:g} s"
        yield warning(
            _CHECK, item, value, "normal for a large corpus; gmp-atl corpora check reads all labels"
        )
        return
    except (ConfigError, CorpusError, ArtifactError) as e:
        yield _refused(item, source.uri, e)
        return
    except Exception as e:
        value, remedy = explain(e)
        yield fatal(_CHECK, item, value, remedy)
        return
    if not utterances:
        value = f"the adapter {config.corpus.adapter!r} lists no utterance"
        yield fatal(_CHECK, item, value, "check runtime.corpus and corpus.adapter")
    elif missing:
        value = f"{len(missing)} of {len(paths)} sampled recordings are missing: {missing[0]}"
        yield fatal(_CHECK, item, value, "gmp-atl corpora check names all missing recordings")
    else:
        yield Finding(_CHECK, item, f"{counted(len(utterances), 'utterance')} listed")
    if utterances:
        yield from _labels(item, source.uri, labels, config)


@dataclass(frozen=True)
class _Checked:
    """Labels, those utterances that are good as far as labels tell, and what is wrong with the others."""

    listed: Labels
    kept: list[Utterance]
    unusable: list[Problem]
    notes: list[Note]


def _read(source: Store, config: RunConfig) -> _Checked:
    labels = read_labels(config.corpus, source, gender_needed=config.needs_gender)
    kept, unusable = labels.checked(None, gender_needed=config.needs_gender)
    return _Checked(labels, kept, unusable, [*labels.notes, *speaker_notes(kept)])


def _labels(item: str, uri: str, labels: _Checked, config: RunConfig) -> Iterator[Finding]:
    """What is wrong or odd with the labels, and whether they give the folds that are asked for."""
    kept, listed = labels.kept, labels.listed
    problems = [*listed.problems, *labels.unusable]
    names = "gmp-atl corpora check names all of them"
    num_listed = len({p.item for p in listed.problems}) + len(listed.utterances)
    try:
        limit = config.corpus.max_bad_fraction
        refuse_too_many_bad(uri, num_listed - len(kept), num_listed, limit, problems)
    except CorpusError as e:
        value = e.message.removeprefix(f"{uri}: ").partition("; ")[0]
        yield fatal(_CHECK, item, f"{value}; the first: {problems[0]}", names)
    else:
        if problems:
            value = f"{len(problems)} labels cannot be used; the first: {problems[0]}"
            yield warning(_CHECK, item, value, names)
    for note in labels.notes:
        yield warning(_CHECK, note.item, note.reason, "look at the labels")
    if kept:
        yield from _folds(item, kept, listed.emotions, config)


def _folds(
    item: str, utterances: Sequence[Utterance], emotions: Sequence[str], config: RunConfig
) -> Iterator[Finding]:
    """The folds that the configuration asks for, or why there are none."""
    try:
        folds = folds_of_listing(config, utterances)
    except (ConfigError, CorpusError) as e:
        headline, *lines = e.message.splitlines()
        value, _, remedy = headline.rstrip(":").partition("; ")
        value += f" ({lines[0].strip(' -')}{', ...' if len(lines) > 1 else ''})" if lines else ""
        yield fatal(_CHECK, item, value, remedy or "gmp-atl corpora check lists the folds")
        return
    for count in count_folds(utterances, folds[:_SHOWN_FOLDS], emotions):
        name = f"{item} {count.fold.name}"
        value = "; ".join(f"{side.name}: {side}" for side in count.sides)
        if absent := count.absent():
            remedy = "hold out other groups, or leave the class out of corpus.emotions"
            yield warning(_CHECK, name, f"{value}; absent classes: {absent}", remedy)
        else:
            yield Finding(_CHECK, name, value)
    if len(folds) > _SHOWN_FOLDS:
        more = f"{len(folds) - _SHOWN_FOLDS} more folds"
        yield Finding(_CHECK, item, f"and {more}")


def _below(path: str, source: Store, config: RunConfig) -> str | None:
    if not is_absolute(path):
        return path
    return below_corpus(path, source.uri, config.corpus.audio_root)


def _refused(item: str, uri: str, error: ConfigError | CorpusError | ArtifactError) -> Finding:
    """The adapter's message contains the remedy, unless the store caused the error."""
    cause = error if isinstance(error, ArtifactError) else error.__cause__
    if isinstance(cause, ArtifactError) and not isinstance(cause, UnreadableError):
        value, remedy = explain(cause)
        return fatal(_CHECK, item, f"cannot be read: {value}", remedy)
    value, _, remedy = error.message.removeprefix(f"{uri}: ").partition("; ")
    return fatal(_CHECK, item, value, remedy or "gmp-atl corpora check gives details")

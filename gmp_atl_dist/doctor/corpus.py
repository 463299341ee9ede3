"""The corpus: whether it can be reached, its labels read, and a few recordings exist.

``ingest`` checks all recordings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.audio_paths import below_corpus, is_absolute
from gmp_atl_dist.corpora.base import find_adapter
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.doctor.deadline import BackgroundCall
from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.doctor.sources import check_sources
from gmp_atl_dist.doctor.storage import store_name
from gmp_atl_dist.doctor.storage_errors import explain
from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.filesystem import Store, UnreadableError

_CHECK = "corpus"


def check_corpus(config: RunConfig, timeout_s: float, labels_s: float) -> Iterator[Finding]:
    """List the labels with the adapter, for at most ``labels_s``, and look for three recordings."""
    if config.corpora:
        yield from check_sources(config, timeout_s, labels_s)
        return
    try:
        source = Store.open(config.runtime.corpus, timeout_s)
    except ArtifactError as e:
        name = f"runtime.corpus {config.runtime.corpus}"
        yield fatal(_CHECK, name, e.message, "name a folder or an s3:// URI")
        return
    item = store_name(source)
    try:
        adapter = find_adapter(config.corpus.adapter)
        listing = BackgroundCall(lambda: adapter.list(source, config.corpus))
        utterances, problems = listing.result(labels_s)
        sample = sorted({0, len(utterances) // 2, len(utterances) - 1}) if utterances else []
        given = [utterances[i].path for i in sample]
        paths = [_below(path, source, config) or path for path in given]
        missing = [path for path in paths if is_absolute(path) or not source.exists(path)]
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
        yield Finding(_CHECK, item, f"{len(utterances)} utterances listed")
    if utterances:
        yield from _folds(item, utterances, config)
    if problems:
        value = f"{len(problems)} labels cannot be read; the first: {problems[0]}"
        yield warning(_CHECK, item, value, "gmp-atl corpora check names all of them")


def _folds(item: str, utterances: Sequence[Utterance], config: RunConfig) -> Iterator[Finding]:
    """Whether the listed speakers give the folds that the configuration asks for."""
    try:
        plan_folds(utterances, config.folds)
    except ConfigError as e:
        value, _, remedy = e.message.partition("; ")
        yield fatal(_CHECK, item, value, remedy or "gmp-atl corpora check lists the folds")
    except CorpusError:
        pass  # of rows that ingest may leave out; gmp-atl corpora check and the run say so


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

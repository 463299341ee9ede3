"""The corpus: reached, its labels read, a few recordings there. ``ingest`` looks at all of them."""

from __future__ import annotations

from collections.abc import Iterator

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.base import find_adapter
from gmp_atl_dist.doctor.deadline import Attempts
from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.doctor.storage import where
from gmp_atl_dist.doctor.storage_errors import explained
from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError
from gmp_atl_dist.store.filesystem import Store, UnreadableError

_CHECK = "corpus"


def check_corpus(config: RunConfig, timeout_s: float, glance_s: float) -> Iterator[Finding]:
    """List the labels, as the adapter does, for ``glance_s`` at most, and look for three recordings."""
    try:
        source = Store.open(config.runtime.corpus, timeout_s)
    except ArtifactError as e:
        name = f"runtime.corpus {config.runtime.corpus}"
        yield fatal(_CHECK, name, e.message, "name a folder or an s3:// URI")
        return
    item = where(source)
    try:
        adapter = find_adapter(config.corpus.adapter)
        listing = Attempts(lambda: adapter.list(source, config.corpus))
        utterances, problems = listing.result(glance_s)
        some = sorted({0, len(utterances) // 2, len(utterances) - 1}) if utterances else []
        paths = [utterances[i].path for i in some]
        missing = [path for path in paths if not source.exists(path)]
    except TimeoutError:
        value = f"its labels were not read to the end in {glance_s:g} s"
        yield warning(_CHECK, item, value, "if it is large: gmp-atl corpora check reads all")
        return
    except (ConfigError, CorpusError, ArtifactError) as e:
        yield _refused(item, source.uri, e)
        return
    except Exception as e:
        value, remedy = explained(e)
        yield fatal(_CHECK, item, value, remedy)
        return
    if not utterances:
        value = f"{config.corpus.adapter!r} lists no utterance"
        yield fatal(_CHECK, item, value, "check runtime.corpus and corpus.adapter")
    elif missing:
        value = f"{len(missing)} of {len(paths)} recordings looked for are not there: {missing[0]}"
        yield fatal(_CHECK, item, value, "gmp-atl corpora check names all that are missing")
    else:
        yield Finding(_CHECK, item, f"{len(utterances)} utterances listed")
    if problems:
        value = f"{len(problems)} labels cannot be read; the first: {problems[0]}"
        yield warning(_CHECK, item, value, "gmp-atl corpora check names all of them")


def _refused(item: str, uri: str, error: ConfigError | CorpusError | ArtifactError) -> Finding:
    """What the adapter says has its remedy in it, unless the store itself is at fault."""
    cause = error if isinstance(error, ArtifactError) else error.__cause__
    if isinstance(cause, ArtifactError) and not isinstance(cause, UnreadableError):
        value, remedy = explained(cause)
        return fatal(_CHECK, item, f"cannot be read: {value}", remedy)
    value, _, remedy = error.message.removeprefix(f"{uri}: ").partition("; ")
    return fatal(_CHECK, item, value, remedy or "gmp-atl corpora check says more")

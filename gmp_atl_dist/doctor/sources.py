"""Several corpora: each is listed as ``ingest`` would list it, and the folds are planned."""

from __future__ import annotations

from collections.abc import Iterator

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.corpora.sources import SourceListing, list_source, refuse_conflicts
from gmp_atl_dist.doctor.deadline import BackgroundCall
from gmp_atl_dist.doctor.findings import Finding, fatal, warning
from gmp_atl_dist.doctor.storage_errors import explain
from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.wording import counted

_CHECK = "corpus"


def check_sources(config: RunConfig, timeout_s: float, labels_s: float) -> Iterator[Finding]:
    """List every source of ``[[corpora]]``, all at once, for at most ``labels_s``."""
    calls = {
        source.name: BackgroundCall(
            lambda source=source: list_source(
                config, source, Store.open(config.runtime.corpora[source.name], timeout_s)
            )
        )
        for source in config.corpora
    }
    found: list[SourceListing] = []
    for name, call in calls.items():
        item = f"{name} ({config.runtime.corpora[name]})"
        try:
            of_source = call.result(labels_s)
        except TimeoutError:
            value = f"reading its labels took more than {labels_s:g} s"
            remedy = "normal for a large corpus; gmp-atl corpora check reads all labels"
            yield warning(_CHECK, item, value, remedy)
        except (ConfigError, CorpusError) as e:
            value, _, remedy = e.message.partition("; ")
            yield fatal(_CHECK, item, value, remedy or "gmp-atl corpora check gives details")
        except ArtifactError as e:
            yield fatal(_CHECK, item, *explain(e))
        else:
            found.append(of_source)
            of_role = f"{of_source.source.role} utterance"
            value = f"{counted(len(of_source.listing.utterances), of_role)} listed"
            yield Finding(_CHECK, item, value)
            if of_source.problems:
                value = f"{len(of_source.problems)} labels cannot be used; the first: "
                value += str(of_source.problems[0])
                remedy = "gmp-atl corpora check names all of them"
                yield warning(_CHECK, item, value, remedy)
    if len(found) == len(calls):
        yield from _together(config, found)


def _together(config: RunConfig, found: list[SourceListing]) -> Iterator[Finding]:
    labelled = [f for f in found if f.source.is_labelled]
    utterances: list[Utterance] = [u for f in labelled for u in f.utterances]
    try:
        refuse_conflicts(config, found)
        folds = plan_folds(utterances, config.folds)
    except (ConfigError, CorpusError) as e:
        value, _, remedy = e.message.partition("; ")
        yield fatal(_CHECK, "folds", value, remedy or "gmp-atl corpora check lists the folds")
    else:
        yield Finding(_CHECK, "folds", f"{len(folds)} can be planned over {len(labelled)} corpora")

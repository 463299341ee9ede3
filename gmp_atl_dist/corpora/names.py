"""What people call a corpus."""

from __future__ import annotations

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.base import find_adapter
from gmp_atl_dist.errors import ConfigError

_TITLES = {"iemocap": "IEMOCAP", "synthetic": "synthetic voices"}
"""Of the adapters of this package that read one known corpus."""


def corpus_name(config: RunConfig) -> str:
    """``runtime.corpus_name``; if it is unset, the title of a known corpus, or the name of its folder.

    Of several corpora, the names of the labelled ones.

    An adapter of another package may have an attribute ``title``.
    """
    given = config.runtime.corpus_name
    if given is not None:
        return " ".join(given.split())
    if config.corpora:
        return " + ".join(source.name for source in config.corpora if source.is_labelled)
    try:
        title = _TITLES.get(config.corpus.adapter) or getattr(
            find_adapter(config.corpus.adapter), "title", ""
        )
    except ConfigError:
        title = ""  # a package that is not installed here; the run itself would report it
    folder = config.runtime.corpus.rstrip("/").rpartition("/")[2]
    return str(title) or folder or config.corpus.adapter

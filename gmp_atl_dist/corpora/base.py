"""The protocol of corpus adapters, and how one is found.

An adapter lists the utterances of a corpus. It is found by its name in the entry-point group
``gmp_atl_dist.corpora``, so a new corpus is one module in any package. The entry point names an
object, or a class without arguments, that implements :class:`Corpus`. Adapters only read labels.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.plugins import PluginGroup
from gmp_atl_dist.records import Problem, Utterance
from gmp_atl_dist.store.filesystem import Store

ADAPTERS = PluginGroup(
    "gmp_atl_dist.corpora",
    "corpus.adapter",
    {
        "cremad": "gmp_atl_dist.corpora.cremad:CremaD",
        "emodb": "gmp_atl_dist.corpora.emodb:EmoDb",
        "emovo": "gmp_atl_dist.corpora.emovo:Emovo",
        "esd": "gmp_atl_dist.corpora.esd:Esd",
        "folder": "gmp_atl_dist.corpora.folder:Folder",
        "huggingface": "gmp_atl_dist.corpora.huggingface:HuggingFace",
        "iemocap": "gmp_atl_dist.corpora.iemocap:Iemocap",
        "lhotse": "gmp_atl_dist.corpora.lhotse:Lhotse",
        "meld": "gmp_atl_dist.corpora.meld:Meld",
        "msp_podcast": "gmp_atl_dist.corpora.msp_podcast:MspPodcast",
        "nemo": "gmp_atl_dist.corpora.nemo:Nemo",
        "ravdess": "gmp_atl_dist.corpora.ravdess:Ravdess",
        "savee": "gmp_atl_dist.corpora.savee:Savee",
        "shemo": "gmp_atl_dist.corpora.shemo:Shemo",
        "subesco": "gmp_atl_dist.corpora.subesco:Subesco",
        "synthetic": "gmp_atl_dist.corpora.iemocap:Iemocap",
        "table": "gmp_atl_dist.corpora.table:Table",
        "tess": "gmp_atl_dist.corpora.tess:Tess",
        "webdataset": "gmp_atl_dist.corpora.webdataset:WebDataset",
    },
)


Listed: TypeAlias = tuple[list[Utterance], list[Problem]]
"""The utterances of a corpus, and the items that cannot be read."""


@runtime_checkable
class Corpus(Protocol):
    """An adapter. If ``default_emotions`` is empty, the classes are the emotions that it lists.

    It may have an attribute ``options``: the keys of ``corpus.options`` that it knows, each with what it is
    for; and an attribute ``card`` (:class:`~gmp_atl_dist.corpora.card.Card`).
    """

    @property
    def name(self) -> str: ...

    @property
    def default_emotions(self) -> tuple[str, ...]: ...

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        """All labelled utterances of the corpus at ``source``, and the items that cannot be read."""
        ...


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

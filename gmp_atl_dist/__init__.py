"""GMP-ATL speech-emotion recognition on a cluster. Read ``pipeline.py`` first.

The names in ``__all__`` are the public Python API (docs/python-api.md). Everything else may change with
any release. A public name is imported when it is first used, so that ``import gmp_atl_dist`` loads
neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gmp_atl_dist import metrics
    from gmp_atl_dist.config import RunConfig
    from gmp_atl_dist.config.file import load_config
    from gmp_atl_dist.corpora.base import Corpus
    from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
    from gmp_atl_dist.errors import GmpAtlError
    from gmp_atl_dist.execution import open_context, run_pipeline, run_stage
    from gmp_atl_dist.predict import Predictor
    from gmp_atl_dist.runs.models import resolve_model
    from gmp_atl_dist.stage_survey import StageStatus, survey

__version__ = "0.6.0"

__all__ = [
    "Corpus",
    "CorpusListing",
    "GmpAtlError",
    "Predictor",
    "RunConfig",
    "StageStatus",
    "load_config",
    "metrics",
    "open_context",
    "read_corpus",
    "resolve_model",
    "run_pipeline",
    "run_stage",
    "survey",
]

_HOMES = {
    "Corpus": "corpora.base",
    "CorpusListing": "corpora.reading",
    "GmpAtlError": "errors",
    "Predictor": "predict",
    "RunConfig": "config",
    "StageStatus": "stage_survey",
    "load_config": "config.file",
    "open_context": "execution",
    "read_corpus": "corpora.reading",
    "resolve_model": "runs.models",
    "run_pipeline": "execution",
    "run_stage": "execution",
    "survey": "stage_survey",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use (https://docs.python.org/3/reference/datamodel.html)."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

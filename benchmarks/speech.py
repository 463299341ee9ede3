"""Real speech in a store, as benchmarks need it: one corpus, one fold, a backbone of random weights."""

from __future__ import annotations

from gmp_atl_dist.config import CorpusConfig, ModelConfig, RuntimeConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import Fold
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import Context, Stage
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.store.artifact import Artifact, ArtifactWriter, find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store

FOLD = Fold("bench", train_speakers=("nemo_EB0", "nemo_IC0"), test_speakers=("nemo_KS0",))
"""Two speakers of nemo are 432 recordings and some 15 minutes."""
_CORPUS = CorpusConfig(adapter="table", columns={"id": "utt_id"}, part_audio_s=120)


def prepare(corpus: str, root: str, model: str) -> None:
    """Ingest the corpus and make the model, below ``root``."""
    context = _context(corpus, root)
    with context.cluster:
        _finish(Ingest(_CORPUS, context.source), context)
        _finish(Backbone(ModelConfig(source=model)), context)


def context_at(corpus: str, root: str) -> tuple[Context, Artifact, Artifact]:
    """What :func:`prepare` left: a context, the corpus and the backbone."""
    context = _context(corpus, root)
    return context, _only(context.store, "ingest"), _only(context.store, "backbone")


def _context(corpus: str, root: str) -> Context:
    settings = RuntimeConfig(corpus=corpus, root=root)
    return Context(
        Store.open(root), Store.open(corpus), settings, Reporter(False), RayConnection(settings)
    )


def _finish(stage: Stage, context: Context) -> None:
    out = ArtifactWriter(context.store, stage.key)
    seal = stage.run(context, out)
    out.seal(
        version=stage.version,
        science=stage.science(),
        inputs={},
        identity=seal.identity,
        problems=seal.problems,
        notes=seal.notes,
    )


def _only(store: Store, kind: str) -> Artifact:
    for key in list_artifacts(store):
        found = find_artifact(store, key) if key.kind == kind else None
        if found is not None:
            return found
    raise ArtifactError(f"{store.uri} holds no {kind}; run prepare first")

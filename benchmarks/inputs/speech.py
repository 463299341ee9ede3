"""Speech in a store: recordings of two training speakers, one test speaker, and a random backbone.

``--corpus`` is a folder with ``manifest.csv`` (columns ``utt_id``, ``path``, ``speaker``, ``gender``,
``emotion``) or a tree in IEMOCAP's shape. Without it a synthetic corpus is written. The first two speakers by
name are the training set, the third is the test speaker: of nEMO EB0, IC0 and KD0, 432 training recordings.
"""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.child import run_alone
from benchmarks.harness.command import at_least
from benchmarks.harness.rounds import MeasurementError
from benchmarks.inputs.stages import finish, sealed_of_kind
from gmp_atl_dist.audio import SAMPLE_RATE_HZ, pcm16_to_float
from gmp_atl_dist.config import CorpusConfig, ModelConfig, RuntimeConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.scheduling.preloaded import preloaded
from gmp_atl_dist.stages.backbone import Backbone
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.ingest import Ingest
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import AudioReader, read_utterances

if TYPE_CHECKING:
    from torch import Tensor

    from gmp_atl_dist.models.hubert import Hubert

RECORDINGS = 216
"""Of each speaker; nEMO has no more."""
_SPEAKERS = 3
_EMOTIONS = 4
_SYNTHETIC_S = (1.0, 3.1)
"""Shortest and longest synthetic recording; the mean is that of nEMO."""
_TABLE = CorpusConfig(adapter="table", columns={"id": "utt_id"}, part_audio_s=120)
_IEMOCAP = CorpusConfig(adapter="iemocap", part_audio_s=120)


@dataclass(frozen=True)
class Speech:
    """What :func:`prepare` left in a store."""

    context: Context
    corpus: Artifact
    backbone: Artifact
    fold: Fold

    @classmethod
    def at(cls, root: str) -> Speech:
        """Read it; any process may."""
        context = _context(root, root)
        corpus = sealed_of_kind(context.store, "ingest")
        speakers = sorted({u.speaker for u in read_utterances(corpus)})
        fold = Fold("bench", tuple(speakers[:-1]), tuple(speakers[-1:]))
        return cls(context, corpus, sealed_of_kind(context.store, "backbone"), fold)

    def waves(self) -> list[Tensor]:
        """float32 [N] samples of each training recording, in the order of their ids."""
        import torch

        reader = AudioReader(self.corpus)
        utterances = self.fold.select(read_utterances(self.corpus), "train")
        return [torch.from_numpy(pcm16_to_float(reader.samples(u))) for u in utterances]

    def model(self) -> Hubert:
        """The backbone, in ``eval()``.

        Raises:
            MeasurementError: it is not a HuBERT, which the other subjects of the benchmarks are.
        """
        from gmp_atl_dist.models.hubert import Hubert
        from gmp_atl_dist.models.source import backbone_from_files

        model = backbone_from_files(self.backbone.read_files()).eval()
        if not isinstance(model, Hubert):
            raise MeasurementError(f"the backbone is a {type(model).__name__}; use a HuBERT")
        return model


def add_corpus_options(parser: ArgumentParser) -> None:
    """``--corpus`` and ``--recordings``."""
    parser.add_argument("--corpus", help="folder of recordings; without it a synthetic corpus")
    parser.add_argument(
        "--recordings",
        type=at_least(2),
        default=RECORDINGS,
        metavar="N",
        help="most recordings of each speaker",
    )


def prepare(corpus: str | None, recordings: int, root: str, model: str) -> Speech:
    """Ingest the recordings and make the backbone, both below the folder ``root``.

    Args:
        corpus: folder of the recordings; None writes a synthetic corpus below ``root``.
        recordings: at most so many of each speaker, evenly spaced.
        model: ``model.source`` of the configuration, e.g. ``random:base``.

    Raises:
        MeasurementError: the corpus has fewer than two speakers.
    """
    config, listing = corpus_listing(corpus, recordings, root)
    context = _context(corpus or _synthetic(root), root)
    with context.connection:
        finish(Ingest(config, context.source, lambda *_: listing), context)
        finish(Backbone(ModelConfig(source=model)), context)
    return Speech.at(root)


def prepare_alone(corpus: str | None, recordings: int, root: str, model: str) -> None:
    """:func:`prepare` in a process of its own, which takes Ray's output along; prints what there is."""
    print(run_alone(partial(_prepared, corpus, recordings, root, model)), flush=True)


def _prepared(corpus: str | None, recordings: int, root: str, model: str) -> str:
    speech = prepare(corpus, recordings, root, model)
    utterances = speech.fold.select(read_utterances(speech.corpus), "train")
    audio_s = sum(u.num_samples for u in utterances) / SAMPLE_RATE_HZ
    speakers = " and ".join(speech.fold.train_speakers)
    return f"training set: {len(utterances)} recordings of {speakers}, {audio_s:.0f} s; {model}"


def corpus_listing(
    corpus: str | None, recordings: int, root: str
) -> tuple[CorpusConfig, CorpusListing]:
    """The corpus as ``ingest`` reads it, and the recordings that :func:`prepare` takes of it."""
    if corpus is None:
        corpus = _synthetic(root)
        write_synthetic_corpus(
            Path(corpus),
            utterances_per_speaker_and_emotion=-(-recordings // _EMOTIONS),
            seconds=_SYNTHETIC_S,
        )
    source = Store.open(corpus)
    config = _TABLE if source.exists(_TABLE.table) else _IEMOCAP
    return config, choose_recordings(read_corpus(config, source), recordings)


def choose_recordings(listing: CorpusListing, recordings: int) -> CorpusListing:
    """Of the first three speakers by name, at most so many recordings each, evenly spaced.

    Raises:
        MeasurementError: there are fewer than two speakers.
    """
    speakers = sorted({u.speaker for u in listing.utterances})[:_SPEAKERS]
    if len(speakers) < 2:
        raise MeasurementError(f"the corpus has {len(speakers)} speaker; two are needed at least")
    chosen: list[Utterance] = []
    for speaker in speakers:
        mine = [u for u in listing.utterances if u.speaker == speaker]
        count = min(recordings, len(mine))
        chosen += [mine[i * len(mine) // count] for i in range(count)]
    chosen.sort(key=lambda u: u.utterance_id)
    present = {u.emotion for u in chosen}
    emotions = tuple(emotion for emotion in listing.emotions if emotion in present)
    return replace(listing, utterances=tuple(chosen), emotions=emotions)


def _synthetic(root: str) -> str:
    return f"{root}/synthetic"


def _context(corpus: str, root: str) -> Context:
    settings = RuntimeConfig(corpus=corpus, root=root)
    connection = RayConnection(settings, preload=preloaded(settings))  # as a run has it
    return Context(Store.open(root), Store.open(corpus), settings, Reporter(False), connection)

"""Random features of a tiny corpus, stored as ``extract`` stores them, with the frames that audio gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.records import FEATURE_SCHEMA
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import feature_part_name
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_utterances
from gmp_atl_dist.store.writer import ArtifactWriter
from support.one_process import Tiny

DIM = 6


def spoken(tiny: Tiny, ids: Sequence[str], layer: int, dim: int = DIM) -> dict[str, np.ndarray]:
    """Random frames that follow from the id and the layer, as many as the audio gives."""
    samples = {u.utterance_id: u.num_samples for u in read_utterances(tiny.corpus)}
    frames: dict[str, np.ndarray] = {}
    for utterance_id in ids:
        rng = np.random.default_rng([layer, *utterance_id.encode()])
        shape = (num_frames(samples[utterance_id]), dim)
        frames[utterance_id] = rng.normal(size=shape).astype(np.float16)
    return frames


def put_features_of(
    context: Context, name: str, layers: Mapping[int, Mapping[str, np.ndarray]], parts: int
) -> Artifact:
    """Features in parts of consecutive utterances, as ``extract`` writes them."""
    out = ArtifactWriter(context.store, ArtifactKey("extract", name))
    for layer, frames in layers.items():
        for part, ids in enumerate(np.array_split(sorted(frames), parts)):
            rows = [
                {
                    "utterance_id": str(i),
                    "layer": layer,
                    "num_frames": len(frames[str(i)]),
                    "dim": frames[str(i)].shape[1],
                    "frames": frames[str(i)].tobytes(),
                }
                for i in ids
            ]
            out.put_part(
                feature_part_name(f"part-{part}", layer),
                pa.Table.from_pylist(rows, schema=FEATURE_SCHEMA),
                frames=sum(len(frames[str(i)]) for i in ids),
                first=str(ids[0]),
                last=str(ids[-1]),
            )
    return out.seal(version=1, science={}, inputs={})

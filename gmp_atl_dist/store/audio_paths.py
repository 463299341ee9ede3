"""The path of each utterance's recording in its corpus, which lists of others may name it by."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.writer import ArtifactWriter

_FILE = "paths.parquet"
_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
    ]
)


def put_audio_paths(out: ArtifactWriter, utterances: Iterable[Utterance]) -> None:
    """Write the path of each utterance, relative to the corpus. It is in no identity: a corpus may move."""
    named = [(u.utterance_id, u.path) for u in utterances]
    ids, paths = ([pair[i] for pair in named] for i in (0, 1))
    buffer = io.BytesIO()
    pq.write_table(
        pa.table({"utterance_id": ids, "path": paths}, schema=_SCHEMA),
        buffer,
        compression="zstd",
        store_schema=False,
    )
    out.put_file(_FILE, buffer.getvalue())


def read_audio_paths(corpus: Artifact) -> dict[str, str]:
    """Path by utterance id; empty where an earlier release stored the corpus.

    Raises:
        ArtifactError: the file is damaged.
    """
    if f"files/{_FILE}" not in corpus.receipts:
        return {}
    try:
        table = pq.read_table(io.BytesIO(corpus.read_file(_FILE)), schema=_SCHEMA)
    except pa.ArrowException as e:
        raise ArtifactError(
            f"{corpus.store.uri}/{corpus.key.prefix}/files/{_FILE} cannot be read ({e}); delete "
            f"{corpus.key.prefix} and run again"
        ) from e
    return dict(zip(table["utterance_id"].to_pylist(), table["path"].to_pylist(), strict=True))

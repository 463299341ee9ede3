"""Decodes every utterance of a corpus and measures it, in threads, without storing anything.

libsndfile, soxr and the FFT of numpy let other threads work meanwhile. Parts are those of ``ingest``, so the
memory is that of one recording per thread.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from gmp_atl_dist.audio_measures import AudioTable, measures_of
from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.reading import CorpusListing
from gmp_atl_dist.corpora.recordings import CANNOT_BE_USED, Recordings, problem_of
from gmp_atl_dist.corpora.same_audio import SameAudio, same_samples
from gmp_atl_dist.records import Problem, Utterance
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import pcm16_sha256

_AT_ONCE = 64
"""Utterances that one thread reads in order: neighbours are often segments of one file."""


@dataclass(frozen=True)
class AudioCheck:
    """What decoding a corpus found.

    Attributes:
        table: measures of the utterances that can be used.
        problems: why the others cannot: as ``ingest`` would name them.
        same: utterances with the same samples, by position in ``used``.
        used: the utterances of ``table``, in id order.
    """

    table: AudioTable
    problems: tuple[Problem, ...]
    same: SameAudio
    used: tuple[Utterance, ...]


@dataclass(frozen=True)
class _Piece:
    table: AudioTable
    digests: tuple[str, ...]
    problems: tuple[Problem, ...]


def check_audio(
    listing: CorpusListing,
    source: Store,
    config: CorpusConfig,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AudioCheck:
    """Decode and measure every utterance of ``listing``.

    Args:
        threads: None: one per core.
        progress: called with the numbers of finished and of all utterances.

    Raises:
        ArtifactError: the store does not answer.
    """
    utterances = listing.utterances
    chunks = [utterances[i : i + _AT_ONCE] for i in range(0, len(utterances), _AT_ONCE)]
    workers = threads or len(os.sched_getaffinity(0))
    pieces: list[_Piece] = []
    done = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="check") as pool:
        try:
            for chunk, piece in _in_order(pool, chunks, source, config, 2 * workers):
                pieces.append(piece)
                done += len(chunk)
                progress(done, len(utterances))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    # Pieces are in order, and so are the utterances in each of them.
    table = AudioTable.concatenated(piece.table for piece in pieces)
    measured = set(table.ids)
    used = tuple(u for u in utterances if u.utterance_id in measured)
    same = same_samples(used, (digest for piece in pieces for digest in piece.digests))
    problems = [problem for piece in pieces for problem in piece.problems]
    return AudioCheck(table, (*problems, *same.problems(used)), same, used)


def _in_order(
    pool: ThreadPoolExecutor,
    chunks: Sequence[Sequence[Utterance]],
    source: Store,
    config: CorpusConfig,
    ahead: int,
) -> Iterator[tuple[Sequence[Utterance], _Piece]]:
    """Each chunk with its measures, in order; at most ``ahead`` are under way."""
    waiting = iter(chunks)
    running: deque[tuple[Sequence[Utterance], Future[_Piece]]] = deque()
    while True:
        for chunk in islice(waiting, ahead - len(running)):
            running.append((chunk, pool.submit(_measured, chunk, source, config)))
        if not running:
            return
        chunk, future = running.popleft()
        yield chunk, future.result()


def _measured(chunk: Sequence[Utterance], source: Store, config: CorpusConfig) -> _Piece:
    recordings = Recordings(source, config)
    ids: list[str] = []
    rows: list[dict[str, float]] = []
    digests: list[str] = []
    problems: list[Problem] = []
    for utterance in chunk:
        try:
            recording = recordings.read(utterance)
        except CANNOT_BE_USED as e:
            problems.append(problem_of(utterance, e))
            continue
        ids.append(utterance.utterance_id)
        rows.append(measures_of(recording.pcm16, recording.header))
        digests.append(pcm16_sha256(recording.pcm16))
    return _Piece(AudioTable.of(ids, rows), tuple(digests), tuple(problems))

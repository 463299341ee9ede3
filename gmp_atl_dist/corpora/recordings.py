"""The recordings of a corpus, decoded as its configuration says: for ``ingest``, and for a check."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gmp_atl_dist.audio import ChannelsCancelError, Header, decode_with_header
from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.audio_files import AudioBytes
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Problem, Utterance
from gmp_atl_dist.store.filesystem import Store, UnreadableError

CANNOT_BE_USED = (CorpusError, UnreadableError)
"""What :meth:`Recordings.read` raises about a single recording. Any other error stops the work."""


@dataclass(frozen=True)
class Recording:
    """The 16 kHz mono samples (N,) of an utterance, and what the header of its file says."""

    pcm16: npt.NDArray[np.int16]
    header: Header


class Recordings:
    """Reads utterances one after the other, best in the order of ``in_reading_order``."""

    def __init__(self, source: Store, config: CorpusConfig) -> None:
        self._files = AudioBytes(source)
        self._config = config

    def ahead(self, utterances: Iterable[Utterance]) -> AbstractContextManager[None]:
        """Meanwhile ``read`` is asked for these, in this order; see :meth:`AudioBytes.ahead`."""
        return self._files.ahead(utterance.path for utterance in utterances)

    def read(self, utterance: Utterance) -> Recording:
        """The samples of an utterance.

        Raises:
            CorpusError: its bytes are at fault. Says what to do, and does not name the utterance.
            UnreadableError: the file is missing.
            ArtifactError: the store does not answer.
        """
        config = self._config
        data = self._files.read(utterance.path)
        try:
            pcm16, header = decode_with_header(
                data,
                start_s=utterance.start_s,
                end_s=utterance.end_s,
                min_s=config.min_s,
                max_s=config.max_s,
                channel=config.channel,
            )
        except ChannelsCancelError as e:
            advice = "or set corpus.channel = 'first' or 'loudest'"
            raise CorpusError(f"{e.message}, {advice}") from e
        return Recording(pcm16, header)


def problem_of(utterance: Utterance, error: CorpusError | UnreadableError) -> Problem:
    """A recording that cannot be used, as a bad item."""
    return Problem(f"{utterance.utterance_id} ({utterance.path})", error.message)

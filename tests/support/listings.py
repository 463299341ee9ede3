"""A listed corpus as if it were ingested."""

from __future__ import annotations

from gmp_atl_dist.corpora.reading import CorpusListing
from gmp_atl_dist.records import StoredUtterance


def stored_utterances(listing: CorpusListing) -> list[StoredUtterance]:
    """Its utterances, each of one second, in one part."""
    return [
        StoredUtterance(
            utterance_id=u.utterance_id,
            speaker=u.speaker,
            gender=u.gender,
            emotion=u.emotion,
            session=u.session,
            split=u.split,
            num_samples=16000,
            audio_sha256="0" * 64,
            part="p",
            row=0,
        )
        for u in listing.utterances
    ]

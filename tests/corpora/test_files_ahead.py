"""Files in object storage are read ahead: the same bytes and errors, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from support.s3_server import S3Server

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.files_ahead import FilesAhead
from gmp_atl_dist.corpora.recordings import Recordings
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.filesystem import Store, UnreadableError

WAIT_S = 60.0


class Noting(Store):
    """Notes the size of each file that it begins to read."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.begun: list[int] = []
        self.grew = threading.Condition()

    def read(self, path: str, admit: Callable[[int], None] = lambda _: None) -> bytes:
        def noted(size: int) -> None:
            admit(size)
            with self.grew:
                self.begun.append(size)
                self.grew.notify_all()

        return super().read(path, noted)

    def wait(self, files: int) -> None:
        with self.grew:
            assert self.grew.wait_for(lambda: len(self.begun) >= files, WAIT_S), self.begun


def written(folder: Path, sizes: list[int]) -> list[str]:
    for i, size in enumerate(sizes):
        (folder / f"{i:02d}").write_bytes(bytes([i]) * size)
    return [f"{i:02d}" for i in range(len(sizes))]


def test_what_fits_is_read_before_it_is_asked_for_and_no_more(tmp_path: Path) -> None:
    store, paths = Noting(str(tmp_path)), written(tmp_path, [1_000] * 12)
    with FilesAhead(store, paths, ahead_bytes=3_500) as ahead:
        store.wait(3)
        for i, path in enumerate(paths):
            assert ahead.read(path) == bytes([i]) * 1_000
            store.wait(min(i + 4, len(paths)))
            assert len(store.begun) <= i + 5


def test_a_file_larger_than_the_bound_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    sizes = [10, 50_000, 10, 50_000, 50_000, 10]
    store, paths = Noting(str(tmp_path)), written(tmp_path, sizes)
    with FilesAhead(store, paths, ahead_bytes=100) as ahead:
        store.wait(3)
        assert sorted(store.begun) == [10, 10, 10]
        assert [len(ahead.read(path)) for path in paths] == sizes


def test_neighbours_in_one_file_read_it_once_and_leaving_early_ends(tmp_path: Path) -> None:
    store, paths = Noting(str(tmp_path)), written(tmp_path, [10, 20, 5_000, 5_000])
    with FilesAhead(store, [paths[0], paths[0], *paths[1:]], ahead_bytes=100) as ahead:
        assert len(ahead.read(paths[0])) == 10
        # Not the next one: read by itself.
        assert len(ahead.read(paths[3])) == 5_000
        assert len(ahead.read(paths[1])) == 20
    assert store.begun.count(10) == 1


def test_recordings_on_s3_are_those_of_the_folder_and_a_missing_one_is_named(
    s3_server: S3Server, tmp_path: Path
) -> None:
    remote, local = Store.open(s3_server.new_uri()), Store.open(str(tmp_path))
    rng = np.random.default_rng(0)
    utterances = [Utterance(f"u{i}", f"{i:02d}.wav", "s", "female", "sad") for i in range(20)]
    for utterance in utterances:
        sf.write(tmp_path / utterance.path, 0.1 * rng.normal(size=3_000), 24_000)
        remote.put(utterance.path, local.read(utterance.path))
    remote.delete("07.wav")

    noting = Noting(remote.uri)
    near, far = (Recordings(store, CorpusConfig(adapter="table")) for store in (local, noting))
    with far.ahead(utterances):
        noting.wait(5)
        for utterance in utterances:
            if utterance.path == "07.wav":
                with pytest.raises(UnreadableError, match=r"07\.wav.*it is not there"):
                    far.read(utterance)
            else:
                expected = near.read(utterance).pcm16
                np.testing.assert_array_equal(far.read(utterance).pcm16, expected)

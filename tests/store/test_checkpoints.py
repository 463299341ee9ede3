"""Which checkpoints are kept, which are deleted, and what is refused of a record."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmp_atl_dist.errors import CheckpointError
from gmp_atl_dist.store.checkpoints import CheckpointFile, CheckpointRecord, Checkpoints
from gmp_atl_dist.store.filesystem import Store

NAME = "f" * 64
KEEP = 2


@pytest.fixture
def store(store_uri: str) -> Store:
    return Store.open(store_uri)


def seal(checkpoints: Checkpoints, step: int, attempt: str, local: Path) -> str:
    """A checkpoint of one rank with one file; the name of its folder."""
    folder = f"{step:08d}-{attempt}"
    local.mkdir(exist_ok=True)
    (local / "shard.pt").write_bytes(f"{folder}".encode())
    checkpoints.upload(folder, local, rank=0)
    checkpoints.seal(folder, step=step, world_size=1, zero_stage=1, keep=KEEP)
    return folder


def folders(store: Store) -> set[str]:
    return {entry.path.split("/")[2] for entry in store.list(f"checkpoints/{NAME}")}


def test_the_checkpoint_just_sealed_is_kept_and_those_passed_over_go(
    store: Store, tmp_path: Path
) -> None:
    before = Checkpoints(store, NAME)
    damaged = [seal(before, step, "a", tmp_path / "local") for step in (90, 100)]
    for folder in damaged:
        store.put(f"checkpoints/{NAME}/{folder}/files/shard.pt", b"damaged")
    # The next attempt cannot use them and starts over.
    checkpoints = Checkpoints(store, NAME)
    for record in checkpoints.sealed():
        with pytest.raises(CheckpointError, match="is damaged"):
            checkpoints.fetch(record, tmp_path / "restored")
        checkpoints.pass_over(record.folder)

    new = seal(checkpoints, 10, "b", tmp_path / "local")

    assert folders(store) == {new}
    assert [record.folder for record in Checkpoints(store, NAME).sealed()] == [new]


def test_seal_says_what_it_deleted_of_the_checkpoints_passed_over(
    store: Store, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(store, NAME)
    good, damaged = [seal(checkpoints, step, "a", tmp_path / "local") for step in (90, 100)]
    checkpoints.pass_over(damaged)
    checkpoints.upload("00000095-b", tmp_path / "local", rank=0)

    dropped = checkpoints.seal("00000095-b", step=95, world_size=1, zero_stage=1, keep=KEEP)

    assert dropped == [damaged]
    assert folders(store) == {good, "00000095-b"}


def test_a_newer_checkpoint_of_another_attempt_stays_sealed_or_not(
    store: Store, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(store, NAME)
    newer = seal(Checkpoints(store, NAME), 40, "other", tmp_path / "local")
    # A rank has uploaded its share of a checkpoint that is not sealed yet.
    unsealed = "00000050-other"
    checkpoints.upload(unsealed, tmp_path / "local", rank=1)
    # An older unsealed one is of a killed attempt.
    checkpoints.upload("00000005-killed", tmp_path / "local", rank=0)

    own = [seal(checkpoints, step, "b", tmp_path / "local") for step in (10, 20, 30)]

    assert folders(store) == {newer, unsealed, *own[-KEEP:]}


def test_what_is_no_checkpoint_is_not_deleted(store: Store, tmp_path: Path) -> None:
    checkpoints = Checkpoints(store, NAME)
    checkpoints.request_stop()
    checkpoints.note_failure("out of memory")
    for step in (10, 20, 30):
        seal(checkpoints, step, "a", tmp_path / "local")

    assert checkpoints.stop_requested()
    assert checkpoints.failure() == "out of memory"


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/outside"])
def test_a_record_whose_path_leaves_its_folder_is_refused(
    store: Store, tmp_path: Path, path: str
) -> None:
    checkpoints = Checkpoints(store, NAME)
    local = tmp_path / "deep" / "restored"
    path = path.replace("/outside", f"{tmp_path}/outside") if path == "/outside" else path
    file = CheckpointFile(path=path, bytes=0, sha256="0" * 64)
    record = CheckpointRecord(
        folder="00000010-a", step=10, world_size=1, zero_stage=1, files=(file,)
    )

    with pytest.raises(CheckpointError, match=r"'.*outside' leaves its folder"):
        checkpoints.fetch(record, local)
    assert not list(tmp_path.rglob("outside*"))


def test_a_record_that_names_another_folder_is_not_used(store: Store, tmp_path: Path) -> None:
    checkpoints = Checkpoints(store, NAME)
    folder = seal(checkpoints, 10, "a", tmp_path / "local")
    path = f"checkpoints/{NAME}/{{}}/_record.json"
    store.put(path.format("00000020-b"), store.read(path.format(folder)))

    assert [record.folder for record in checkpoints.sealed()] == [folder]

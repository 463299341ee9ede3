from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.filesystem import Store, normalize_uri


@pytest.fixture
def store(any_store_uri: str) -> Store:
    return Store.open(any_store_uri)


def test_folders_are_those_directly_below(store: Store) -> None:
    for path in ("b/x", "a/c/d", "a/e", "top"):
        store.put(path, b"1")
    assert store.folders() == ["a", "b"]
    assert store.folders("a") == ["c"]
    assert store.folders("nowhere") == []


def test_objects_come_back_whole(store: Store) -> None:
    store.put("a/b.bin", b"one")
    store.put("a/c/d.bin", b"")
    store.put("a/b.bin", b"three")

    assert store.read("a/b.bin") == b"three"
    assert store.read("a/c/d.bin") == b""
    with store.open_input("a/b.bin") as f:
        f.seek(2)
        assert f.read() == b"ree"


def test_list_is_sorted_relative_and_recursive(store: Store) -> None:
    for path in ("b/2", "a/x/y", "a/x1", "b/10"):
        store.put(path, path.encode())

    assert [e.path for e in store.list()] == ["a/x/y", "a/x1", "b/10", "b/2"]
    assert [e.path for e in store.list("a")] == ["a/x/y", "a/x1"]
    assert [e.size for e in store.list("a")] == [5, 4]
    assert all(abs(e.mtime_ns / 1e9 - time.time()) < 3600 for e in store.list())
    assert store.list("none/here") == []


def test_an_empty_root_lists_nothing(store: Store) -> None:
    assert store.list() == []


def test_exists_is_about_objects_not_folders(store: Store) -> None:
    store.put("a/b", b"1")

    assert store.exists("a/b")
    assert not store.exists("a")
    assert not store.exists("a/c")


@pytest.mark.parametrize("read", [Store.read, Store.open_input])
def test_a_missing_object_is_named(store: Store, read) -> None:
    with pytest.raises(ArtifactError) as e:
        read(store, "a/missing")

    assert str(e.value) == f"cannot read 'a/missing' in {store.uri}: it is not there"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/"])
def test_a_path_cannot_leave_the_root(store: Store, path: str) -> None:
    for act in (store.read, store.exists, store.list, store.delete, lambda p: store.put(p, b"1")):
        with pytest.raises(ArtifactError, match="is not a path below"):
            act(path)


def test_delete_takes_what_is_below_and_no_more(store: Store) -> None:
    for path in ("a/b/1", "a/b/2", "a/b2"):
        store.put(path, b"1")

    store.delete("a/b")
    store.delete("never/was")

    assert [e.path for e in store.list()] == ["a/b2"]
    with pytest.raises(ArtifactError, match="refusing to delete the whole"):
        store.delete("")


def test_one_of_several_exclusive_writers_wins(store: Store) -> None:
    num_writers, rounds = 8, 3
    with ThreadPoolExecutor(num_writers) as pool:
        for i in range(rounds):
            barrier = Barrier(num_writers)

            def write(n: int, i: int = i, barrier: Barrier = barrier) -> bool:
                mine = Store.open(store.uri)
                mine.list()
                barrier.wait()
                return mine.put_exclusive(f"lock{i}", f"writer {n}".encode())

            won = list(pool.map(write, range(num_writers)))

            assert won.count(True) == 1
            assert store.read(f"lock{i}") == f"writer {won.index(True)}".encode()
    assert [e.path for e in store.list()] == [f"lock{i}" for i in range(rounds)]


def test_check_writable_leaves_nothing(store: Store) -> None:
    store.check_writable()

    assert store.list() == []


def test_a_store_pickles_and_reconnects(store: Store) -> None:
    store.put("a", b"1")

    copy = pickle.loads(pickle.dumps(store))

    assert copy.uri == store.uri
    assert copy.read("a") == b"1"


def test_a_root_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store.open(str(tmp_path / "file" / "root"))

    with pytest.raises(
        ArtifactError, match=r"cannot write 'probe-\w+/probe' in file://.*file/root"
    ):
        store.check_writable()


def test_a_failed_put_leaves_no_temporary(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    (tmp_path / "taken" / "below").mkdir(parents=True)

    with pytest.raises(ArtifactError, match="cannot write 'taken'"):
        store.put("taken", b"1")

    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_wrong_s3_keys_are_explained(s3_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = Store.open(s3_server.new_uri())

    for act in (store.check_writable, store.list, lambda: store.exists("a")):
        with pytest.raises(ArtifactError, match=r"for s3:// the AWS_\* environment"):
            act()


def test_a_bucket_that_is_not_there_is_explained(s3_server) -> None:
    with pytest.raises(ArtifactError, match="in s3://no-such-bucket/x"):
        Store.open("s3://no-such-bucket/x").check_writable()


_ENDLESS_WRITER = """
import sys
from gmp_atl_dist.store.filesystem import Store
store = Store.open(sys.argv[1])
data = bytes(range(256)) * (int(sys.argv[2]) // 256)
for i in range(10**6):
    store.put(f"parts/{i % 4}", data)
    print(i, flush=True)
"""


@pytest.mark.faults
def test_a_killed_writer_leaves_whole_objects_only(store: Store) -> None:
    size = 16 * 2**20
    whole = bytes(range(256)) * (size // 256)
    for delay_s in (0.0, 0.005, 0.02, 0.05):
        writer = subprocess.Popen(
            [sys.executable, "-c", _ENDLESS_WRITER, store.uri, str(size)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"0\n"
        # The writer is now somewhere in its second object, and overwrites objects later.
        time.sleep(delay_s)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()

        entries = store.list()
        assert entries
        assert {e.size for e in entries} == {size}
        assert all(e.path.startswith("parts/") for e in entries)
        assert all(store.read(e.path) == whole for e in entries)


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("s3://bucket/prefix/", "s3://bucket/prefix"),
        ("s3://bucket", "s3://bucket"),
        ("gs://bucket/prefix/", "gs://bucket/prefix"),
        ("az://container", "az://container"),
        ("file:///a/b/", "file:///a/b"),
        ("/a/b/", "file:///a/b"),
        ("/a/./c/../b", "file:///a/b"),
    ],
)
def test_one_spelling_of_a_root(given: str, uri: str) -> None:
    assert normalize_uri(given) == uri
    assert normalize_uri(uri) == uri


def test_a_relative_root_is_below_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open("runs/../my runs")
    monkeypatch.chdir("/")

    store.put("a", b"1")

    assert (tmp_path / "my runs" / "a").read_bytes() == b"1"
    assert [e.path for e in store.list()] == ["a"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://b/x", "scheme 'ftp' is not known"),
        ("s3:///x", "names no bucket"),
        ("gs:///x", "names no bucket; write gs://bucket/prefix"),
        ("az://", "names no container; write az://container/prefix"),
        ("gcs://b/x", "write gs://bucket/prefix"),
        ("abfss://c@a.dfs.core.windows.net/x", "write az://container/prefix and set AZURE_STORAGE"),
        ("az://c@account/x", "name the account in AZURE_STORAGE_ACCOUNT_NAME"),
        ("gs://b//x", "has an empty step"),
        ("gs://b/a/../x", "has an empty step, . or .."),
    ],
)
def test_a_root_that_is_none_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Store.open(uri)

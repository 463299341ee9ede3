"""Google Cloud Storage and Azure Blob: identities, errors, time limits, ranges, and what Ray Train writes.

What every store promises is in ``test_filesystem.py``. The servers here are not those of the clouds.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from support.azure_server import CLIENT, TENANT
from support.cloud_server import LISTED_AT_ONCE, CloudServer
from support.google_server import ACCOUNT
from support.s3_server import free_ports

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store import azure_blob, google_cloud
from gmp_atl_dist.store.filesystem import Store, UnreadableError

TIMEOUT_S = 0.5
AT_ONCE_S = 10.0


@pytest.fixture(params=["gs", "az"])
def cloud(request: pytest.FixtureRequest) -> CloudServer:
    """A server of each dialect; ``cloud.scheme`` is its scheme."""
    name = {"gs": "google", "az": "azure"}[request.param]
    server: CloudServer = request.getfixturevalue(name)
    server.scheme = f"{request.param}://"
    return server


@pytest.fixture
def store(cloud: CloudServer) -> Store:
    return Store.open(cloud.new_uri(cloud.scheme))


def point_to(cloud: CloudServer, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests for objects go to ``url``; tokens come from where they came from."""
    if cloud.scheme == "gs://":
        monkeypatch.setenv("GOOGLE_BASE_URL", url)
    else:
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{url}/account")


@pytest.fixture
def blackhole() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


def test_a_listing_has_all_its_pages(store: Store) -> None:
    names = [f"a/{i:04}" for i in range(2 * LISTED_AT_ONCE + 7)]
    for name in names:
        store.put(name, b"")

    assert [e.path for e in store.list()] == names
    store.delete("a")
    assert store.list() == []


def test_keys_may_hold_any_characters(store: Store) -> None:
    names = ["a b/ü+%25&#?.wav", "a b/x=y;z.wav", "日本/語.wav"]
    for name in names:
        store.put(name, name.encode())

    assert [e.path for e in store.list()] == sorted(names)
    assert [store.read(name).decode() for name in names] == names
    assert store.folders() == ["a b", "日本"]


def test_columns_are_read_in_ranges(cloud: CloudServer, store: Store) -> None:
    rows = 20_000
    table = pa.table({"a": list(range(rows)), "b": [f"{i:050}" for i in range(rows)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=5_000, compression="none")
    store.put("parts/one.parquet", memoryview(sink.getvalue()))
    store.put("parts/two.parquet", memoryview(sink.getvalue()))

    found = ds.dataset(store.absolute("parts"), filesystem=store.filesystem, format="parquet")
    assert found.count_rows() == 2 * rows
    assert found.to_table(columns=["a"], filter=ds.field("a") == 7)["a"].to_pylist() == [7, 7]
    with store.open_input("parts/one.parquet") as f:
        assert pq.ParquetFile(f).read_row_group(2, columns=["a"])["a"][0].as_py() == 10_000
    whole = [r for r in cloud.requests if r.startswith("GET") and "parts/" in r]
    assert whole, "ranges are requests of their own"
    with store.open_input("parts/one.parquet") as f:
        f.seek(-4, os.SEEK_END)
        assert f.read(100) == b"PAR1"
        assert f.read(1) == b""


def test_a_copy_is_whole_and_replaces(store: Store) -> None:
    store.put("a", b"one")
    store.put("b", b"two")

    store.copy("a", "b")
    store.copy("a", "deep/er")

    assert (store.read("b"), store.read("deep/er"), store.read("a")) == (b"one", b"one", b"one")
    with pytest.raises(UnreadableError, match=r"'none' in .*: it is not there"):
        store.copy("none", "b")


def test_views_of_any_shape_are_put(store: Store) -> None:
    store.put("view", memoryview(b"abcdefgh").cast("I"))
    store.put("empty", memoryview(b""))

    assert (store.read("view"), store.read("empty")) == (b"abcdefgh", b"")


def test_what_ray_train_writes(store: Store) -> None:
    """Folders, markers and snapshots, through a filesystem that went to another process."""
    files: pafs.FileSystem = pickle.loads(pickle.dumps(store.filesystem))
    folder = store.absolute("ray/run")
    files.create_dir(folder)
    with files.open_output_stream(f"{folder}/.marker") as out:
        out.write(b"one")
        out.write(b"two")
    files.copy_file(f"{folder}/.marker", f"{folder}/copy")
    files.move(f"{folder}/copy", f"{folder}/moved")

    assert store.read("ray/run/.marker") == b"onetwo"
    kinds = {
        i.base_name: i.type for i in files.get_file_info(pafs.FileSelector(store.absolute("ray")))
    }
    assert kinds == {"run": pafs.FileType.Directory}
    files.delete_file(f"{folder}/moved")
    files.delete_dir(folder)
    assert store.list() == []
    with pytest.raises(FileNotFoundError):
        files.get_file_info(pafs.FileSelector(folder))
    assert files == store.filesystem
    assert files != Store.open("gs://other/x").filesystem


def test_tokens_are_asked_for_as_the_clouds_give_them(cloud: CloudServer, store: Store) -> None:
    store.put("a", b"1")
    store.read("a")

    asked = [r for r in cloud.requests if "token" in r]
    expected = {
        "gs://": "GET /computeMetadata/v1/instance/service-accounts/default/token",
        # The slash at the end of AZURE_AUTHORITY_HOST is not doubled.
        "az://": f"POST /{TENANT}/oauth2/v2.0/token",
    }
    assert set(asked) == {expected[cloud.scheme]}


def test_a_machine_of_azure_has_a_managed_identity(
    azure: CloudServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_IDENTITY_ENDPOINT", f"{azure.url}/metadata/identity/oauth2/token")
    store = Store.open(azure.new_uri("az://"))

    store.put("a", b"1")

    assert "GET /metadata/identity/oauth2/token" in azure.requests
    assert azure_blob.identity() == "the managed identity of this machine"


def test_the_identity_is_named(
    google: CloudServer, azure: CloudServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert azure_blob.identity() == f"workload identity: client {CLIENT} of tenant {TENANT}"
    assert google_cloud.asks_metadata_server()
    user = tmp_path / ".config/gcloud/application_default_credentials.json"
    user.parent.mkdir(parents=True)
    user.write_text("{}")
    assert "gcloud's file" in google_cloud.identity()
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_BEARER_TOKEN"):
        monkeypatch.setenv(name, "a-secret-value")
        assert name in google_cloud.identity()
        assert "a-secret-value" not in google_cloud.identity()
    for name in ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_TOKEN"):
        monkeypatch.setenv(name, "a-secret-value")
        assert name in azure_blob.identity()
        assert "a-secret-value" not in azure_blob.identity()


def test_an_identity_without_rights(cloud: CloudServer, store: Store) -> None:
    store.put("a", b"1")
    cloud.denied = True

    for act in (
        lambda: store.read("a"),
        store.list,
        store.check_writable,
        lambda: store.delete("a"),
    ):
        with pytest.raises(ArtifactError, match="CloudError: 403 Forbidden") as e:
            act()
        assert "identity (doctor names it)" in e.value.message
        assert "Debug source" not in e.value.message
        assert not isinstance(e.value, UnreadableError)
    with pytest.raises(
        ArtifactError, match="403 Forbidden AccessDenied this identity may do nothing"
    ):
        store.put("b", b"1")


def test_a_bucket_that_is_not_there_is_no_missing_object(cloud: CloudServer) -> None:
    store = Store.open(f"{cloud.scheme}no-such-bucket/x")

    for act in (store.check_writable, lambda: store.put_exclusive("a", b"1"), store.list):
        with pytest.raises(ArtifactError, match="does not exist") as e:
            act()
        assert not isinstance(e.value, UnreadableError)


def test_a_busy_server_is_asked_again(cloud: CloudServer, store: Store) -> None:
    cloud.fail_next = [503, 500, 429]

    store.put("a", b"1")

    assert cloud.fail_next == []
    assert store.read("a") == b"1"


def test_a_server_that_refuses_connections(
    cloud: CloudServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    point_to(cloud, url, monkeypatch)
    store = Store.open(cloud.new_uri(cloud.scheme), TIMEOUT_S)
    began_s = time.monotonic()

    for act in (lambda: store.read("a"), store.list, lambda: store.put("a", b"1")):
        with pytest.raises(ArtifactError, match="does not answer") as e:
            act()
        assert not isinstance(e.value, UnreadableError)
    assert time.monotonic() - began_s < AT_ONCE_S


def test_a_server_that_never_answers(
    cloud: CloudServer, blackhole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(cloud, blackhole, monkeypatch)
    store = Store.open(cloud.new_uri(cloud.scheme), TIMEOUT_S)
    began_s = time.monotonic()

    for act in (lambda: store.exists("a"), store.list, lambda: store.put("a", b"1")):
        with pytest.raises(ArtifactError, match="does not answer"):
            act()
    assert time.monotonic() - began_s < AT_ONCE_S


def test_no_identity_at_all(google: CloudServer, monkeypatch: pytest.MonkeyPatch) -> None:
    host = f"127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    monkeypatch.setenv("GCE_METADATA_IP", host)

    with pytest.raises(ArtifactError, match=f"no token from {host}"):
        Store.open("gs://gmp-atl/x", TIMEOUT_S).list()


def test_no_account_is_named(azure: CloudServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")

    with pytest.raises(
        ArtifactError, match="no storage account is named; set AZURE_STORAGE_ACCOUNT_NAME"
    ):
        Store.open("az://gmp-atl/x").list()


def test_a_key_file_that_is_none(
    google: CloudServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "key.json"
    path.write_text('{"type": "external_account"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))

    with pytest.raises(ArtifactError, match=r"gs://gmp-atl cannot be opened: .*external_account"):
        Store.open("gs://gmp-atl/x").list()


def test_a_missing_library_is_named(cloud: CloudServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """None in ``sys.modules`` is what Python itself takes for a module that is not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    store = Store.open(cloud.new_uri(cloud.scheme))

    for act in (store.list, lambda: store.put("a", b"1")):
        with pytest.raises(
            ArtifactError, match=r"install the extra clouds .*gmp_atl_dist\[clouds\]"
        ):
            act()


_FORK = """
import os, sys
from gmp_atl_dist.store.filesystem import Store
store = Store.open(sys.argv[1])
store.put("a", b"1")
if os.fork() == 0:
    try:
        store.read("a")
    except RuntimeError as e:
        print(e, flush=True)
        os._exit(7)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_fork_is_refused_and_does_not_hang(google: CloudServer) -> None:
    words = [sys.executable, "-c", _FORK, google.new_uri("gs://")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)

    assert done.returncode == 7, done.stderr
    assert "start it as a process of its own" in done.stdout


def test_doctor_names_server_and_identity(cloud: CloudServer) -> None:
    from gmp_atl_dist.doctor.storage import check_store

    found = list(check_store(cloud.new_uri(cloud.scheme), 3.0))

    assert [f.severity for f in found] == ["ok"] * 6
    assert cloud.url in found[0].item
    named = {"gs://": f"{ACCOUNT}, by the metadata server", "az://": f"client {CLIENT}"}
    assert named[cloud.scheme] in found[0].value


@pytest.mark.parametrize(
    ("break_it", "said", "remedy"),
    [
        ("denied", "403", "doctor names it"),
        ("bucket", "does not exist", "create the bucket or container"),
        ("token", "no token from", "on GKE bind|on AKS label"),
    ],
)
def test_doctor_knows_remedies(
    cloud: CloudServer, monkeypatch: pytest.MonkeyPatch, break_it: str, said: str, remedy: str
) -> None:
    import re

    from gmp_atl_dist.doctor.storage import check_store

    root = cloud.new_uri(cloud.scheme)
    if break_it == "denied":
        cloud.denied = True
    elif break_it == "bucket":
        root = f"{cloud.scheme}no-such/x"
    else:
        dead = f"127.0.0.1:{free_ports(1)[0]}"
        monkeypatch.setenv("GCE_METADATA_HOST", dead)
        monkeypatch.setenv("GCE_METADATA_IP", dead)
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"http://{dead}")
    (found,) = [f for f in check_store(root, TIMEOUT_S) if f.severity != "ok"]

    assert found.severity == "fatal"
    assert said in found.value
    assert re.search(remedy, found.remedy)


def test_recordings_are_found_and_read(store: Store, cloud: CloudServer) -> None:
    from gmp_atl_dist.prediction.sources import find_sources

    store.put("calls/a.wav", b"RIFF")
    store.put("calls/b/c.flac", b"fLaC")
    store.put("calls/notes.md", b"x")
    store.put("list.txt", b"calls/a.wav\n")

    found = find_sources([f"{store.uri}/calls", f"{store.uri}/**/*.flac", f"{store.uri}/list.txt"])

    names = [f"{store.uri}/calls/{name}" for name in ("a.wav", "b/c.flac", "b/c.flac", "a.wav")]
    assert [source.name for source in found] == names
    assert [source.read() for source in found] == [b"RIFF", b"fLaC", b"fLaC", b"RIFF"]

"""Which recordings the arguments of ``predict`` name: on disk, in lists, and in a real object store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.classifiers import write_noise
from support.s3_server import S3Server

from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError
from gmp_atl_dist.prediction import reading
from gmp_atl_dist.prediction.reading import read_ahead, read_recording
from gmp_atl_dist.prediction.sources import Source, find_sources
from gmp_atl_dist.store.filesystem import Store


def names(*paths: str | Path) -> list[str]:
    found = find_sources([str(p) for p in paths])
    assert not [source for source in found if source.error]
    return [source.name for source in found]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/2.FLAC", "b/c/3.ogg", "a.wav", "notes.md", ".hidden/x.wav", "b/._2.flac"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "tree"


def test_files_folders_and_globs_keep_the_order_given(tree: Path) -> None:
    inside = [str(tree / name) for name in ("a.wav", "b/2.FLAC", "b/c/3.ogg")]
    assert names(tree) == inside
    assert names(tree / "b", tree / "a.wav") == [*inside[1:], inside[0]]
    assert names(tree / "*.wav") == inside[:1]
    assert names(tree / "**/*.ogg") == inside[2:]
    assert names(tree / "*") == inside
    # A file that is named itself may have any suffix, and need not exist yet.
    assert names(tree / "notes.md", "absent.xyz") == [str(tree / "notes.md"), "absent.xyz"]


def test_a_name_with_brackets_is_a_file_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "take[1].wav").write_bytes(b"")
    assert names(tmp_path / "take[1].wav") == [str(tmp_path / "take[1].wav")]


def test_what_leads_nowhere_is_an_error_of_its_own(tree: Path) -> None:
    (tree / "empty").mkdir()
    found = find_sources([str(tree / "empty"), str(tree / "*.mp3"), str(tree / "absent.csv")])
    assert [source.error for source in found] == [
        "holds no audio file",
        "matches no audio file",
        "cannot be read (No such file or directory)",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "utt_id,path\n1,a.wav\n2,b/2.FLAC\n"),
        ("list.csv", "\ufeffFile;speaker\na.wav;x\nb/2.FLAC;y\n"),
        ("list.tsv", "wav\tlength\na.wav\t1\nb/2.FLAC\t2\n"),
        ("list.txt", "# of today\na.wav\n\nb/2.FLAC\n"),
    ],
)
def test_lists(tree: Path, name: str, text: str) -> None:
    (tree / name).write_text(text, encoding="utf-8")
    assert names(tree / name) == [str(tree / "a.wav"), str(tree / "b/2.FLAC")]


def test_a_list_names_absolute_paths_and_cannot_leave_its_folder(tree: Path) -> None:
    (tree / "list.txt").write_text(f"{tree}/a.wav\n../../etc/passwd\nb/../a.wav\ns3://x/y.wav\n")
    found = find_sources([str(tree / "list.txt")])
    assert [s.name for s in found] == [
        str(tree / "a.wav"),
        "../../etc/passwd",
        str(tree / "a.wav"),
        "s3://x/y.wav",
    ]
    assert "leaves the folder of the list" in found[1].error
    with pytest.raises(CorpusError, match="leaves the folder"):
        found[1].read()


def test_a_list_without_paths(tree: Path) -> None:
    (tree / "list.csv").write_text("id,label\n1,x\n")
    with pytest.raises(ConfigError, match=r"columns id, label, and none .* name one of path, file"):
        find_sources([str(tree / "list.csv")])
    (tree / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        find_sources([str(tree / "list.txt")])


def test_objects(s3_server: S3Server, tmp_path: Path) -> None:
    root = s3_server.new_uri()
    store = Store.open(root)
    wav = write_noise(tmp_path / "a.wav", 0.1).read_bytes()
    for name in ("in/b.wav", "in/a.wav", "in/deep/c.wav", "in/readme.md"):
        store.put(name, wav)
    store.put("in/list.csv", b"path\na.wav\n/etc/passwd\n")

    assert names(f"{root}/in/b.wav") == [f"{root}/in/b.wav"]
    assert names(f"{root}/in") == [f"{root}/in/{n}.wav" for n in ("a", "b", "deep/c")]
    assert names(f"{root}/in/*.wav") == [f"{root}/in/a.wav", f"{root}/in/b.wav"]
    assert names(f"{root}/in/**/[bc].wav") == [f"{root}/in/b.wav", f"{root}/in/deep/c.wav"]
    fine, outside = find_sources([f"{root}/in/list.csv"])
    assert fine == Source(f"{root}/in/a.wav")
    # A list in an object store must not choose files of this machine.
    assert "no path below the folder of the list" in outside.error
    (nothing,) = find_sources([f"{root}/absent"])
    assert nothing.error == "has no audio object below it"

    found = list(read_ahead([fine, Source(f"{root}/in/absent.wav")]))
    assert found[0].samples is not None
    assert "it is not there" in found[1].error


def test_a_store_that_does_not_answer_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    store = Store.open("s3://nowhere", timeout_s=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gmp_atl_dist.prediction.sources._bucket", lambda _: store)
        with pytest.raises(ArtifactError, match=r"cannot read 'a\.wav' in s3://nowhere"):
            next(read_ahead([Source("s3://nowhere/a.wav")]))


def test_recordings_are_read_ahead_in_order_and_bad_ones_say_why(tmp_path: Path) -> None:
    files = [write_noise(tmp_path / f"{i}.wav", 0.1 + 0.01 * i, rate_hz=8_000) for i in range(40)]
    files[3].write_bytes(b"no sound")
    write_noise(files[4], 0.02)
    files[5].unlink()

    found = list(read_ahead(Source(str(path)) for path in files))

    assert [r.name for r in found] == [str(path) for path in files]
    lengths = [len(r.samples) if r.samples is not None else 0 for r in found]
    expected = [round(16_000 * (0.1 + 0.01 * i)) for i in range(40)]
    assert lengths == [0 if i in (3, 4, 5) else n for i, n in enumerate(expected)]
    assert found[0].source_rate_hz == 8_000
    assert "cannot be decoded" in found[3].error
    assert "is too short, 320 samples" in found[4].error
    assert found[5].error == "cannot be read (No such file or directory)"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.wav", 0.1)
    path.chmod(0)
    assert read_recording(Source(str(path))).error == "cannot be read (Permission denied)"


def test_few_recordings_are_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of long ones, only what fits into the limit; the list is not run through."""
    monkeypatch.setattr(reading, "_AHEAD_BYTES", 4 << 20)
    path = write_noise(tmp_path / "long.wav", 30)
    taken = 0

    def sources() -> Iterator[Source]:
        nonlocal taken
        while True:
            taken += 1
            yield Source(str(path))

    stream = read_ahead(sources())
    for _ in range(3):
        next(stream)
    stream.close()
    # Three results, five that fill the limit, and those that are being decoded.
    assert taken <= 3 + 5 + 2 * reading.READ_THREADS

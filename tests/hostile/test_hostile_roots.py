"""Roots that are misspelt, of other programs, or damaged; and what is typed wrongly."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.hostile import Case, Place, check

from gmp_atl_dist.cli.main import main

FINE = '[corpus]\nadapter = "table"\n[model]\nsource = "random:tiny"\n'


def words(*text: str) -> Callable[[Place], Sequence[str]]:
    """A command; ROOT and FOLDER stand for those of the case, and RUN for a configuration."""

    def make(place: Place) -> Sequence[str]:
        config = place.write("run.toml", FINE)
        known = {"ROOT": str(place.root), "FOLDER": str(place.folder), "RUN": str(config)}
        made = []
        for word in text:
            for name, value in known.items():
                word = word.replace(name, value)
            made.append(word)
        return made

    return make


def after(prepare: Callable[[Place], object], *text: str) -> Callable[[Place], Sequence[str]]:
    def make(place: Place) -> Sequence[str]:
        prepare(place)
        return words(*text)(place)

    return make


def file_of_root(name: str, data: bytes | str) -> Callable[[Place], object]:
    return lambda place: place.write(f"root/{name}", data)


@cache
def codebook() -> dict[str, bytes]:
    """The objects of a root with one imported codebook."""
    with tempfile.TemporaryDirectory() as folder:
        out = io.BytesIO()
        np.save(out, np.eye(4, 8, dtype=np.float32))
        Path(folder, "b.npy").write_bytes(out.getvalue())
        root = Path(folder, "root")
        command = ("codebook", "import", f"{folder}/b.npy", "--layer", "2", "--root", str(root))
        with redirect_stdout(io.StringIO()):
            assert main(command) == 0
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }


def altered(end: str, change: Callable[[bytes], bytes | None]) -> Callable[[Place], object]:
    """The root of :func:`codebook` with another content of the object whose name ends so."""

    def prepare(place: Place) -> None:
        for name, data in codebook().items():
            new = change(data) if name.endswith(end) else data
            if new is not None:
                place.write(f"root/{name}", new)

    return prepare


def edited(**changed: object) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(json.loads(data) | changed).encode()


def receipt(**changed: object) -> Callable[[bytes], bytes]:
    """The manifest with another first receipt."""

    def change(data: bytes) -> bytes:
        manifest = json.loads(data)
        manifest["receipts"][0] |= changed
        return json.dumps(manifest).encode()

    return change


def manifest(
    change: Callable[[bytes], bytes | None], *text: str
) -> Callable[[Place], Sequence[str]]:
    return after(altered("_manifest.json", change), *text)


VERIFY = ("verify", "--root", "ROOT")
SHOW = ("codebook", "show", "--root", "ROOT")
RECORD = "runs/a/run.json"
REPAIR = "gmp-atl repair --root"

ROOTS = [
    Case(
        "empty",
        words("verify", "--root", ""),
        "'' is empty",
        "name a folder or s3://bucket/prefix",
        4,
    ),
    Case(
        "one-slash",
        words("verify", "--root", "s3:/b/x"),
        "'s3:/b/x' is no URI",
        "write s3://b/x",
        4,
    ),
    Case(
        "capitals",
        words("verify", "--root", "S3://b/x"),
        "'S3://b/x' is no URI",
        "write s3://b/x",
        4,
    ),
    Case(
        "no-bucket",
        words("verify", "--root", "s3://"),
        "'s3://' names no bucket",
        "write s3://bucket/prefix",
        4,
    ),
    Case(
        "google-by-another-name",
        words("verify", "--root", "gcs://b/x"),
        "scheme 'gcs' is not known",
        "write gs://bucket/prefix",
        4,
    ),
    Case(
        "azure-by-another-name",
        words("verify", "--root", "abfss://c@account.dfs.core.windows.net/x"),
        "scheme 'abfss' is not known",
        "write az://container/prefix and set AZURE_STORAGE_ACCOUNT_NAME",
        4,
    ),
    Case(
        "web",
        words("verify", "--root", "http://b/x"),
        "scheme 'http' is not known",
        "use a folder, file://, s3://, gs:// or az://",
        4,
    ),
    Case(
        "machine",
        words("verify", "--root", "file://b/x"),
        "names the machine 'b'",
        "write file:///b/x",
        4,
    ),
    Case("windows", words("verify", "--root", "C:\\\\data"), "looks like a URI", "write C:", 4),
    Case("zero-byte", words("verify", "--root", "a\0b"), "holds a zero byte", "remove it", 4),
    Case("hub", words("verify", "--root", "hf:/x"), "'hf:/x' is no URI", "write hf://", 4),
    Case(
        "hub-model",
        words("verify", "--root", "hf://x/y"),
        "'hf://x/y' is no dataset of the hub",
        "write hf://datasets/OWNER/NAME",
        4,
    ),
    Case(
        "root-is-file",
        after(lambda p: p.write("root", "text"), *VERIFY),
        "root is a file, not a root",
        "name a folder or s3://bucket/prefix",
        4,
    ),
    Case(
        "layout-of-text",
        after(file_of_root("_layout.json", "x"), *VERIFY),
        "_layout.json is damaged",
        "restore it, or use a new root",
        4,
    ),
    Case(
        "layout-binary",
        after(file_of_root("_layout.json", b"\xff\xfe"), *VERIFY),
        "_layout.json is damaged",
        "restore it",
        4,
    ),
    Case(
        "layout-deep",
        after(file_of_root("_layout.json", "[" * 50_000), *VERIFY),
        "_layout.json is damaged",
        "restore it",
        4,
    ),
    Case(
        "layout-list",
        after(file_of_root("_layout.json", "[1]"), *VERIFY),
        "_layout.json is damaged",
        "restore it",
        4,
    ),
    Case(
        "layout-true",
        after(file_of_root("_layout.json", '{"layout": true}'), *VERIFY),
        "_layout.json is damaged",
        "restore it",
        4,
    ),
    Case(
        "layout-huge",
        after(file_of_root("_layout.json", f'{{"layout": {"9" * 5000}}}'), *VERIFY),
        "_layout.json is damaged",
        "restore it",
        4,
    ),
    Case(
        "layout-newer",
        after(file_of_root("_layout.json", '{"layout": 99}'), *VERIFY),
        "has layout 99",
        "upgrade gmp_atl_dist",
        4,
    ),
    Case(
        "layout-older",
        after(file_of_root("artifacts/x/y/z", "x"), *VERIFY),
        "has layout 0",
        "use a new root",
        4,
    ),
    Case(
        "manifest-of-text",
        manifest(lambda _: b"x", *VERIFY),
        "_manifest.json is not a manifest",
        REPAIR,
        4,
    ),
    Case(
        "manifest-empty",
        manifest(lambda _: b"", *VERIFY),
        "_manifest.json is not a manifest",
        REPAIR,
        4,
    ),
    Case(
        "manifest-binary",
        manifest(lambda _: b"\xff" * 99, *VERIFY),
        "_manifest.json is not a manifest",
        REPAIR,
        4,
    ),
    Case(
        "manifest-deep",
        manifest(lambda _: b"[" * 50_000, *VERIFY),
        "_manifest.json is not a manifest",
        REPAIR,
        4,
    ),
    Case(
        "manifest-cut",
        manifest(lambda data: data[:-9], *VERIFY),
        "_manifest.json is not a manifest",
        REPAIR,
        4,
    ),
    Case(
        "manifest-of-other-kind",
        manifest(edited(kind="cluster"), *VERIFY),
        "belongs to cluster/",
        REPAIR,
        4,
    ),
    Case(
        "manifest-of-other",
        manifest(edited(fingerprint="0" * 64), *VERIFY),
        "belongs to codebook/000",
        REPAIR,
        4,
    ),
    Case(
        "receipts-of-text",
        manifest(edited(receipts="x"), *VERIFY),
        "_manifest.json is not a manifest",
        REPAIR,
        4,
    ),
    Case(
        "receipt-leads-out",
        manifest(receipt(name="../../../../secret"), *VERIFY),
        "../../../../secret",
        REPAIR,
        4,
    ),
    Case(
        "receipt-absolute",
        manifest(receipt(name="/etc/passwd"), *VERIFY),
        "/etc/passwd",
        REPAIR,
        4,
    ),
    Case(
        "receipt-of-other-bytes",
        manifest(receipt(sha256="0" * 64), *VERIFY),
        "with 000000000000",
        REPAIR,
        4,
    ),
    Case(
        "receipt-negative",
        manifest(receipt(rows=-1), *VERIFY),
        "_manifest.json is not a manifest",
        REPAIR,
        4,
    ),
    Case(
        "part-altered",
        after(altered(".parquet", lambda d: d[:-9] + b"PAR1xPAR1"), *VERIFY),
        "have sha256",
        REPAIR,
        4,
    ),
    Case(
        "part-no-parquet",
        after(altered(".parquet", lambda d: bytes(len(d))), *SHOW),
        "is damaged: its",
        REPAIR,
        4,
    ),
    Case(
        "record-of-text",
        after(file_of_root(RECORD, "x"), "runs", "show", "a", "--root", "ROOT"),
        f"{RECORD} is damaged",
        "delete it",
        4,
    ),
    Case(
        "record-deep",
        after(file_of_root(RECORD, "[" * 50_000), "runs", "show", "a", "--root", "ROOT"),
        f"{RECORD} is damaged",
        "delete it",
        4,
    ),
    Case(
        "record-empty",
        after(file_of_root(RECORD, "{}"), "runs", "show", "a", "--root", "ROOT"),
        f"{RECORD} is damaged",
        "delete it",
        4,
    ),
]

COMMANDS = [
    Case("no-such-command", words("trian"), "trian", "see --help", 2),
    Case("no-such-option", words("run", "--confg", "x"), "--confg", "see --help", 2),
    Case("no-config", words("run"), "--config", "see --help", 2),
    Case("config-without-value", words("run", "--config"), "--config", "see --help", 2),
    Case(
        "no-such-stage",
        words("stage", "trian", "--config", "RUN", "--root", "ROOT"),
        "'trian'",
        "known: ingest, backbone",
        2,
    ),
    Case(
        "run-not-found",
        words("compare", "a", "b", "--root", "ROOT"),
        "'a' is no run, no configuration",
        "gmp-atl run",
        2,
    ),
    Case(
        "folder-not-found",
        words("compare", "ROOT/runs/a", "b", "--root", "ROOT"),
        "/runs/a' is no run",
        "gmp-atl run records each one",
        2,
    ),
    Case(
        "report-not-found",
        words("compare", "ROOT/a.json", "b", "--root", "ROOT"),
        "a.json' does not exist",
        "give the report.json of a finished run",
        2,
    ),
    Case("compare-one-run", words("compare"), "RUN...", "see --help", 2),
    Case(
        "compare-confidence",
        words("compare", "a", "b", "--confidence", "2"),
        "--confidence 2",
        "give a value between 0 and 1",
        2,
    ),
    Case(
        "compare-by", words("compare", "a", "b", "--by", "hair"), "--by hair", "give one of fold", 2
    ),
    Case(
        "compare-samples",
        words("compare", "a", "b", "--samples", "1"),
        "--samples",
        "see --help",
        2,
    ),
    Case("compare-uri", words("compare", "s3:/a", "b"), "'s3:/a' is no URI", "write s3://a", 2),
    Case(
        "run-name-leads-out",
        words("runs", "show", "../../x", "--root", "ROOT"),
        "'../../x' is no run",
        "gmp-atl run records each one",
        2,
    ),
    Case(
        "runs-of-nothing",
        words("runs", "show", "a", "--root", "ROOT"),
        "'a'",
        "gmp-atl run records each one",
        2,
    ),
    Case(
        "status-of-nothing",
        words("status", "a", "--root", "ROOT"),
        "'a'",
        "gmp-atl run records each one",
        2,
    ),
    Case("verify-what", words("verify"), "no root to verify", "give --root or --config", 2),
    Case(
        "show-no-codebook",
        words("codebook", "show", "abc", "--root", "ROOT"),
        "'abc' begins the fingerprint of 0",
        "give more characters of one of: none",
        4,
    ),
    Case(
        "export-no-features",
        words("features", "export", "abc", "--layer", "1", "--out", "FOLDER/out", "--root", "ROOT"),
        "'abc'",
        "give more characters",
        4,
    ),
    Case(
        "export-no-run",
        words("model", "export", "a", "--to", "FOLDER/out", "--root", "ROOT"),
        "'a'",
        "gmp-atl run records each one",
        2,
    ),
    Case(
        "layer-of-text",
        words("codebook", "import", "x", "--layer", "two", "--root", "ROOT"),
        "'--layer'",
        "see --help",
        2,
    ),
    Case(
        "predict-no-model",
        words("predict", "FOLDER/none", "FOLDER/x.wav"),
        "none' is no folder here",
        "gmp-atl run records each one",
        2,
    ),
    Case(
        "predict-no-file",
        words("predict", "a", "--root", "ROOT", "FOLDER/x.wav"),
        "'a'",
        "gmp-atl run records each one",
        2,
    ),
    Case(
        "synth-into-file",
        words("corpora", "synth", "--out", "RUN"),
        "run.toml is a file",
        "name a folder",
        3,
    ),
    Case(
        "doctor-waits-negative",
        words("doctor", "--config", "RUN", "--wait-s", "-1"),
        "--wait-s",
        "see --help",
        2,
    ),
    Case(
        "config-show-nothing",
        words("config", "check", "--config", "iemocap/nothing"),
        "iemocap/nothing: cannot be read",
        "the name of a shipped configuration",
        2,
    ),
]

CASES = [*ROOTS, *COMMANDS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_command_is_refused(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


def test_the_root_of_these_cases_is_whole_before_it_is_altered(tmp_path: Path) -> None:
    altered("nothing", lambda data: data)(Place(tmp_path))
    assert main(["verify", "--root", str(tmp_path / "root")]) == 0

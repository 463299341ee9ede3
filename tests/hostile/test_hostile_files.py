"""Codebooks, features, labels and model folders of others: nothing in them is executed, and each is named."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from support.hostile import Case, Place, check, contents

from gmp_atl_dist.config import ModelConfig
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.source import load_source, model_to_files
from gmp_atl_dist.models.stored import load_emotion_model

MARK = "GMP_ATL_TEST_EXECUTED"


class Evil:
    """Sets an environment variable when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, (f"import os; os.environ[{MARK!r}] = 'yes'",))


@pytest.fixture(autouse=True)
def nothing_is_executed() -> object:
    os.environ.pop(MARK, None)
    yield
    assert MARK not in os.environ


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def dumped(value: object) -> bytes:
    out = io.BytesIO()
    joblib.dump(value, out)
    return out.getvalue()


def book(name: str, data: bytes, *words: str) -> Callable[[Place], Sequence[str]]:
    """``codebook import`` of this file."""

    def make(place: Place) -> Sequence[str]:
        file = place.write(name, data)
        return ["codebook", "import", str(file), "--layer", "2", "--root", str(place.root), *words]

    return make


def frames(
    array: np.ndarray | bytes, lengths: str | None = "2\n1\n", **more: str
) -> Callable[[Place], Sequence[str]]:
    """``features import`` of these files."""

    def make(place: Place) -> Sequence[str]:
        file = place.write("f.npy", array if isinstance(array, bytes) else npy(array))
        if lengths is not None:
            place.write("f.len", lengths)
        for suffix, text in more.items():
            place.write(f"f.{suffix}", text)
        return ["features", "import", str(file), "--layer", "2", "--root", str(place.root)]

    return make


CENTROIDS = np.eye(4, 8, dtype=np.float32)
BOOK = npy(CENTROIDS)
HUGE = BOOK[:10] + BOOK[10:].replace(b"(4, 8)", b"(400000000, 8000)".ljust(6))
THREE = np.zeros((3, 4), np.float32)
NAN = np.where(np.eye(3, 4) > 0, np.nan, 1).astype(np.float32)

CASES = [
    Case(
        "no-codebook",
        lambda p: [
            "codebook",
            "import",
            str(p.folder / "x.npy"),
            "--layer",
            "2",
            "--root",
            str(p.root),
        ],
        "x.npy",
        "give a complete .npy file",
        4,
    ),
    Case("empty-codebook", book("b.npy", b""), "b.npy", "give a complete .npy file", 4),
    Case(
        "pickled-codebook",
        book("b.bin", pickle.dumps(Evil())),
        "b.bin",
        "save its cluster_centers_ with numpy.save()",
        4,
    ),
    Case(
        "joblib-codebook",
        book("b.bin", dumped({"a": Evil()})),
        "b.bin",
        "save its cluster_centers_ with numpy.save()",
        4,
    ),
    Case(
        "object-codebook",
        book("b.npy", npy(np.array([Evil()], object))),
        "b.npy",
        "give a complete .npy file",
        4,
    ),
    Case("cut-codebook", book("b.npy", BOOK[:-5]), "b.npy", "give a complete .npy file", 4),
    Case("huge-codebook", book("b.npy", HUGE), "b.npy", "give a complete .npy file", 4),
    Case("text-codebook", book("b.npy", b"1 2 3\n" * 20), "b.npy", "give a complete .npy file", 4),
    Case(
        "complex-codebook",
        book("b.npy", npy(np.eye(4, dtype=complex))),
        "b.npy",
        "expected floating-point numbers [clusters, dim]; give the centroids",
        4,
    ),
    Case(
        "flat-codebook",
        book("b.npy", npy(np.ones(4, np.float32))),
        "b.npy",
        "expected floating-point numbers [clusters, dim]; give the centroids",
        4,
    ),
    Case(
        "codebook-of-nothing",
        book("b.npy", npy(np.zeros((0, 8), np.float32))),
        "b.npy",
        "expected floating-point numbers [clusters, dim]; give the centroids",
        4,
    ),
    Case(
        "codebook-not-finite",
        book("b.npy", npy(CENTROIDS * np.nan)),
        "b.npy",
        "fit the k-means again",
        4,
    ),
    Case(
        "codebook-not-unit",
        book("b.npy", npy(3 * CENTROIDS), "--metric", "cosine"),
        "b.npy: centroid 0 has length 3",
        "import it with --metric euclidean",
        4,
    ),
    Case(
        "codebook-of-other-metric",
        book("b.npy", BOOK, "--metric", "hamming"),
        "hamming",
        "neither euclidean nor cosine",
        2,
    ),
    Case(
        "features-cut",
        frames(npy(THREE)[:-9]),
        "f.npy: cannot be read",
        "give a complete .npy file",
        4,
    ),
    Case(
        "features-pickled",
        frames(npy(np.array([Evil()], object))),
        "f.npy: cannot be read",
        "give a complete .npy file",
        4,
    ),
    Case(
        "features-of-text",
        frames(b"not an array"),
        "f.npy: cannot be read",
        "give a complete .npy file",
        4,
    ),
    Case(
        "features-of-integers",
        frames(np.zeros((3, 4), np.int64)),
        "f.npy: is <i8",
        "convert it with numpy",
        4,
    ),
    Case(
        "features-not-finite",
        frames(NAN),
        "row 0, column 0 is nan",
        "extract these utterances again",
        4,
    ),
    Case("no-lengths", frames(THREE, None), "f.len: cannot be read", "give an existing file", 4),
    Case("empty-lengths", frames(THREE, ""), "f.len", "write it again with the features", 4),
    Case(
        "negative-lengths",
        frames(THREE, "4\n-1\n"),
        "line 2: '-1' is not a number of frames",
        "write it again",
        4,
    ),
    Case(
        "lengths-of-thousand-digits",
        frames(THREE, "9" * 5_000 + "\n"),
        "f.len",
        "write it again",
        4,
    ),
    Case("lengths-superscript", frames(THREE, "\u00b2\n1\n"), "line 1", "write it again", 4),
    Case(
        "wrong-sum", frames(THREE, "2\n2\n"), "add up to 4 frames", "give two files of one run", 4
    ),
    Case(
        "labels-of-others",
        frames(THREE, km="1 2\n"),
        "f.km: has 1 lines",
        "give the labels of these features",
        4,
    ),
    Case(
        "label-negative",
        frames(THREE, km="1 -2\n3\n"),
        "line 1: '-2' is not a label",
        "label these features again",
        4,
    ),
    Case(
        "label-text",
        frames(THREE, km="1 x\n3\n"),
        "line 1: 'x' is not a label",
        "label these features again",
        4,
    ),
    Case(
        "label-huge",
        frames(THREE, km=f"1 {2**31}\n3\n"),
        f"'{2**31}' is not a label",
        "label these features again",
        4,
    ),
    Case(
        "labels-too-few",
        frames(THREE, km="1\n3\n"),
        "line 1: 1 labels",
        "label these features again",
        4,
    ),
    Case(
        "listing-twice",
        frames(THREE, tsv="/\na\t720\na\t400\n"),
        "'a' occurs in line 2 as well",
        "does not list the utterances",
        4,
    ),
    Case(
        "listing-of-others",
        frames(THREE, tsv="/\na\t99999\nb\t400\n"),
        "99999 samples",
        "give the listing",
        4,
    ),
    Case(
        "listing-without-tab",
        frames(THREE, tsv="/\na 720\nb\t400\n"),
        "line 2",
        "is not a path, a tab and a number of samples",
        4,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_file_of_others_is_refused(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@cache
def tiny() -> Mapping[str, bytes]:
    return model_to_files(load_source(ModelConfig(source="random:tiny")))


def saved(value: object, **how: bool) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **how)
    return out.getvalue()


def values(**changed: object) -> bytes:
    return json.dumps(json.loads(tiny()["config.json"]) | changed).encode()


def index(content: object) -> Mapping[str, bytes]:
    return {"model.safetensors.index.json": json.dumps(content).encode()}


def mapped(**files: object) -> Mapping[str, bytes]:
    return index({"metadata": {}, "weight_map": files})


INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin is damaged, or holds more than tensors, which is never loaded"
CONVERT = "convert it to model.safetensors where you trust it"
AGAIN = "download the checkpoint again"
WHOLE = "give a whole checkpoint that save_pretrained of transformers wrote"
WEIGHTS = "model.safetensors"

MODELS: dict[str, tuple[Callable[[], Mapping[str, bytes]], str, str]] = {
    "pickled": (lambda: {"pytorch_model.bin": pickle.dumps(Evil())}, PICKLED, CONVERT),
    "pickled-by-torch": (lambda: {"pytorch_model.bin": saved({"a": Evil()})}, PICKLED, CONVERT),
    "pickled-by-old-torch": (
        lambda: {"pytorch_model.bin": saved({"a": Evil()}, _use_new_zipfile_serialization=False)},
        PICKLED,
        CONVERT,
    ),
    "pickled-list": (lambda: {"pytorch_model.bin": saved([1, 2])}, PICKLED, CONVERT),
    "text-as-pickle": (lambda: {"pytorch_model.bin": b"hello world"}, PICKLED, CONVERT),
    "no-weights": (dict, "has no weights", f"put {WEIGHTS} beside its config.json"),
    "index-is-list": (lambda: index([]), f"{INDEX} has no weight_map", AGAIN),
    "index-is-empty": (lambda: index({}), f"{INDEX} has no weight_map", AGAIN),
    "index-of-nothing": (mapped, f"{INDEX} has no weight_map", AGAIN),
    "index-of-text": (lambda: index({"weight_map": "x"}), f"{INDEX} has no weight_map", AGAIN),
    "index-without-metadata": (
        lambda: index({"weight_map": {"a": "b"}}),
        f"{INDEX} has no metadata",
        AGAIN,
    ),
    "index-cut": (lambda: {INDEX: b'{"metadata"'}, f"{INDEX} is no JSON", AGAIN),
    "index-deep": (lambda: {INDEX: b"[" * 50_000}, f"{INDEX} is no JSON", AGAIN),
    "index-of-absent-file": (
        lambda: mapped(a="m.safetensors"),
        "a is in m.safetensors, which is not there",
        AGAIN,
    ),
    "index-leads-out": (
        lambda: mapped(a="../../etc/passwd"),
        "'../../etc/passwd', which is no file of",
        AGAIN,
    ),
    "index-absolute": (
        lambda: mapped(a="/etc/passwd"),
        "'/etc/passwd', which is no file of",
        AGAIN,
    ),
    "index-of-number": (lambda: mapped(a=3), "a is in 3, which is no file of", AGAIN),
    "weights-cut": (lambda: {WEIGHTS: tiny()[WEIGHTS][:-9]}, "are damaged or do not fit", WHOLE),
    "weights-empty": (lambda: {WEIGHTS: b""}, "are damaged or do not fit", WHOLE),
    "weights-huge-header": (
        lambda: {WEIGHTS: (1 << 62).to_bytes(8, "little") + b"{}"},
        "header too large",
        WHOLE,
    ),
    "config-deep": (
        lambda: {WEIGHTS: tiny()[WEIGHTS], "config.json": b"[" * 50_000},
        "config.json cannot be read: it is nested too deeply",
        "download it again",
    ),
    "config-is-list": (
        lambda: {WEIGHTS: tiny()[WEIGHTS], "config.json": b"[]"},
        "config.json cannot be read: it is not a JSON object",
        "download it again",
    ),
    "config-negative": (
        lambda: {WEIGHTS: tiny()[WEIGHTS], "config.json": values(hidden_size=-8)},
        "are damaged or do not fit",
        WHOLE,
    ),
    "config-of-other-model": (
        lambda: {WEIGHTS: tiny()[WEIGHTS], "config.json": values(model_type="bert")},
        "bert",
        "hubert",
    ),
    "config-with-code": (
        lambda: {
            WEIGHTS: tiny()[WEIGHTS],
            "config.json": values(model_type="x", auto_map={"AutoModel": "evil.M"}),
            "evil.py": f"import os\nos.environ[{MARK!r}] = 'yes'\n".encode(),
        },
        "'x'",
        "hubert",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_folder_is_refused(name: str, tmp_path: Path) -> None:
    make, item, remedy = MODELS[name]
    for file, data in ({"config.json": tiny()["config.json"]} | dict(make())).items():
        (tmp_path / file).write_bytes(data)
    before = contents(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_source(ModelConfig(source=str(tmp_path)))
    assert caught.value.exit_code == 6
    assert str(tmp_path) in caught.value.message
    assert item in caught.value.message
    assert remedy in caught.value.message
    assert "weights_only" not in caught.value.message
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "config", [b"[" * 50_000, b"[]", b"", b'{"model_type": 3}', b'{"emotions": 3}', b"\xff"]
)
def test_a_classifier_with_a_damaged_config_is_refused(config: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(config)
    (tmp_path / WEIGHTS).write_bytes(tiny()[WEIGHTS])
    with pytest.raises(ModelError, match="finetune"):
        load_emotion_model(str(tmp_path))

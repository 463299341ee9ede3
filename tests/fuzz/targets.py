"""The parsers of what comes from outside, each with whole inputs to alter."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from gmp_atl_dist.audio import decode_pcm16
from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.config.file import apply_override, load_config, parse_config
from gmp_atl_dist.corpora.iemocap_votes import read_votes
from gmp_atl_dist.corpora.reading import read_labels
from gmp_atl_dist.store.artifact import find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter

Parse = Callable[[bytes], object]

_VOTES = (
    b"% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    b"[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
    b"C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
    b"[10.0100 - 11.3925]\tSes01F_impro01_M000\texc\t[2.5000, 2.5000, 2.5000]\n"
)
_TABLE = (
    b"id,path,speaker,gender,emotion,session,split,start_s,end_s\n"
    b'a,a.wav,s1,female,happy,1,train,,\nb,"b,1.wav",s1,f,sad,1,valid,0.1,2.5\n'
    b"c,x/c.wav,s2,male,happy,2,test,0,1\n"
)
_TOML = (
    b'[corpus]\nadapter = "table"\nemotions = ["a", "b"]\ncolumns = {id = "utt"}\n'
    b'[folds]\nrun = [1]\n[model]\nsource = "random:tiny"\n'
    b"[cluster]\nscales = [{layer = 6, k = 5}, {layer = 9, k = 7}]\n[warmup]\nlr = 1e-3\nsteps = 10\n"
)
_SETS = (b"warmup.lr=1e-4", b'model.source="random:tiny"', b"cluster.scales=[{layer=6,k=5}]")


@dataclass(frozen=True)
class Target:
    """A parser, and inputs that it takes."""

    name: str
    seeds: tuple[bytes, ...]
    parser: Callable[[], AbstractContextManager[Parse]]


@dataclass(frozen=True)
class Plain:
    """A parser that needs no folder. Unlike a closure, it can be sent to another process."""

    parse: Parse

    def __call__(self) -> AbstractContextManager[Parse]:
        return nullcontext(self.parse)


def parse_votes(data: bytes) -> object:
    return read_votes(data, "Ses01F_impro01.txt", "Session1")


@contextmanager
def table_parser() -> Iterator[Parse]:
    with tempfile.TemporaryDirectory() as folder:
        file, source = Path(folder, "manifest.csv"), Store.open(folder)
        config = CorpusConfig(adapter="table")

        def parse(data: bytes) -> object:
            file.write_bytes(data)
            return read_labels(config, source).checked(None, gender_needed=True)

        yield parse


@contextmanager
def toml_parser() -> Iterator[Parse]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.toml")

        def parse(data: bytes) -> object:
            file.write_bytes(data)
            return load_config(file)

        yield parse


def parse_set(data: bytes) -> object:
    raw: dict[str, object] = {}
    key = apply_override(raw, os.fsdecode(data))
    return parse_config(raw, "--set", {key: "--set"})


_KEY = ArtifactKey("label", "0" * 64)


def _artifact() -> tuple[bytes, bytes]:
    """The manifest and the receipt of an artefact of one file."""
    with tempfile.TemporaryDirectory() as folder:
        out = ArtifactWriter(Store.open(folder), _KEY)
        out.put_file("a.json", b"{}")
        out.seal(version=1, science={"k": [1, 2]}, inputs={"features": "1" * 64})
        place = Path(folder, _KEY.prefix)
        (receipt,) = (path for path in place.rglob("receipts/**/*") if path.is_file())
        return (place / "_manifest.json").read_bytes(), receipt.read_bytes()


@contextmanager
def manifest_parser() -> Iterator[Parse]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(folder)
        file = Path(folder, _KEY.manifest_path)
        file.parent.mkdir(parents=True)

        def parse(data: bytes) -> object:
            file.write_bytes(data)
            found = find_artifact(store, _KEY)
            return None if found is None else found.verify()

        yield parse


@contextmanager
def receipt_parser() -> Iterator[Parse]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(folder)
        ArtifactWriter(store, _KEY).put_file("a.json", b"{}")
        (file,) = (p for p in Path(folder).rglob("receipts/**/*") if p.is_file())

        def parse(data: bytes) -> object:
            file.write_bytes(data)
            done = ArtifactWriter(store, _KEY).done()
            # What is counted as done lies below the artefact.
            assert all(store.exists(f"{_KEY.prefix}/{name}") for name in done)
            return done

        yield parse


def parse_audio(data: bytes) -> object:
    return decode_pcm16(data, max_s=60.0)


def _encoded(fmt: str, subtype: str | None, channels: int) -> bytes:
    samples = 0.1 * np.random.default_rng(0).normal(size=(1_600, channels))
    out = io.BytesIO()
    sf.write(out, samples, 16_000, format=fmt, subtype=subtype)
    return out.getvalue()


_WAV = tuple(
    _encoded(fmt, subtype, channels)
    for fmt, subtype, channels in (
        ("WAV", "PCM_16", 1),
        ("WAV", "FLOAT", 2),
        ("WAV", "MS_ADPCM", 1),
        ("WAV", "GSM610", 1),
        ("WAVEX", "PCM_24", 2),
        ("RF64", "PCM_16", 1),
        ("W64", "PCM_16", 1),
    )
)
_SPHERE = (_encoded("NIST", "PCM_16", 1), _encoded("NIST", "ULAW", 2))
_OTHERS = tuple(_encoded(fmt, None, 1) for fmt in ("FLAC", "OGG", "AIFF", "AU", "MP3"))
_MANIFEST, _RECEIPT = _artifact()
_DEEP = json.dumps({"a": [[[[1]]]]}).encode()

TARGETS = (
    Target("votes", (_VOTES, _VOTES.decode().encode("utf-16")), Plain(parse_votes)),
    Target(
        "table", (_TABLE, _TABLE.replace(b",", b";"), _TABLE.replace(b",", b"\t")), table_parser
    ),
    Target("toml", (_TOML,), toml_parser),
    Target("overrides", _SETS, Plain(parse_set)),
    Target("receipts", (_RECEIPT, _DEEP), receipt_parser),
    Target("manifests", (_MANIFEST, _DEEP), manifest_parser),
    Target("wav", _WAV, Plain(parse_audio)),
    Target("sphere", _SPHERE, Plain(parse_audio)),
    Target("audio", _OTHERS, Plain(parse_audio)),
)

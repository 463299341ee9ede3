"""Tables of several forms: their delimiters, their place, absolute paths, and corpora without gender."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from support.handed import handed_case

from gmp_atl_dist.audio import decode_pcm16
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import CorpusConfig, RunConfig, hashed
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.doctor.corpus import check_corpus
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.store.filesystem import Store

HEADER = "id,path,speaker,gender,emotion,text"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(b"RIFF")
    return folder


def read(
    root: Path, text: str | bytes, /, *, gender_needed: bool = True, **config: object
) -> CorpusListing:
    table = Path(str(config.setdefault("table", "manifest.csv")))
    data = text.encode() if isinstance(text, str) else text
    (table if table.is_absolute() else root / table).write_bytes(data)
    checked = CorpusConfig.model_validate({"adapter": "table", **config})
    return read_corpus(checked, Store.open(str(root)), gender_needed=gender_needed)


def rows(*paths: str) -> str:
    lines = [f"u{i},{path},s{i},f,sad,hello" for i, path in enumerate(paths)]
    return "\n".join([HEADER, *lines]) + "\n"


@pytest.mark.parametrize("name", ["manifest.csv", "m.tsv", "m.txt"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_the_header_tells_the_delimiter(root: Path, name: str, mark: str, bom: str) -> None:
    text = bom + rows("a.wav", "b.wav").replace(",", mark).replace(
        "hello", "no, no; no".replace(mark, "")
    )
    listing = read(root, text, table=name)
    assert [(u.utterance_id, u.path) for u in listing.utterances] == [
        ("u0", "a.wav"),
        ("u1", "b.wav"),
    ]


def test_a_header_that_can_be_split_in_two_ways_is_refused(root: Path) -> None:
    text = "id,path;speaker,x;gender;emotion\n1,a.wav;s,1;f;sad\n"
    with pytest.raises(ConfigError, match=r"split by comma and by semicolon.*corpus\.delimiter"):
        read(root, text)
    # The key decides; the columns are then named as that delimiter has them.
    with pytest.raises(ConfigError, match="has the columns id,path, speaker,x, gender, emotion"):
        read(root, text, delimiter="semicolon")


def test_a_column_with_another_delimiter_in_its_name_is_no_ambiguity(root: Path) -> None:
    text = rows("a.wav").replace("text", "text;note;more;and")
    assert len(read(root, text).utterances) == 1


def test_columns_that_are_renamed_tell_the_delimiter_too(root: Path) -> None:
    text = "utt;wav;spk;sex;label;a,b,c,d,e,f\n1;a.wav;s;f;sad;x\n"
    names = {"id": "utt", "path": "wav", "speaker": "spk", "gender": "sex", "emotion": "label"}
    assert len(read(root, text, columns=names).utterances) == 1


UNCLOSED = [*rows(*["a.wav"] * 6).splitlines()]
UNCLOSED[3] = UNCLOSED[3].replace("hello", '"hello')
TWO = list(UNCLOSED)
TWO[5] = TWO[5].replace("hello", '"well')
PAIR = list(UNCLOSED)
PAIR[5] = PAIR[5].replace("hello", 'well"')


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (UNCLOSED, "in the row of line 4, a quotation mark is not closed"),
        (TWO, "in the row of line 4, a quotation mark is not closed, or stands inside a value"),
        (PAIR, "lines 4 to 6 are one row, because a quoted value reaches over several lines"),
    ],
    ids=["unclosed", "two", "pair"],
)
def test_a_quotation_mark_that_swallows_rows_is_named(
    root: Path, lines: list[str], said: str, end: str
) -> None:
    with pytest.raises(CorpusError, match="close or remove the quotation mark") as caught:
        read(root, end.join(lines) + end)
    assert said in caught.value.message


def test_line_breaks_and_blank_lines_that_swallow_nothing_are_read(root: Path) -> None:
    text = (
        rows("a.wav", "b.wav")
        .replace("hello", '"one, two\n\nthree ""four"""')
        .replace("\nu1", "\n\n\nu1")
    )
    assert len(read(root, text).utterances) == 2
    assert len(read(root, text.replace("\n", "\r\n")).utterances) == 2


@pytest.mark.parametrize(
    "data", [b"id,path,speaker,gender,\xe9motion\n", b"\x1f\x8b\x08\x00,\xff\n"]
)
def test_a_header_that_is_not_utf8_is_refused(root: Path, data: bytes) -> None:
    with pytest.raises(
        CorpusError, match=r"cannot be read \((line 1, byte 24 is not UTF-8|it is gzip data)"
    ):
        read(root, data)


def test_a_decimal_comma_is_named(root: Path) -> None:
    text = "id;path;speaker;gender;emotion;start_s\n1;a.wav;s;f;sad;0,5\n"
    with pytest.raises(
        CorpusError, match=r"start_s '0,5' is not a number of seconds; write a decimal"
    ):
        read(root, text)


def test_a_table_outside_the_folder_of_the_audio(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.tsv"
    text = rows("a.wav", "b.wav").replace(",", "\t")
    assert len(read(root, text, table=str(table)).utterances) == 2
    checked = CorpusConfig(adapter="table", table=table.as_uri())
    assert len(read_corpus(checked, Store.open(str(root))).utterances) == 2
    with pytest.raises(
        ConfigError, match=r"name a file below runtime\.corpus, or an absolute path"
    ):
        read_corpus(CorpusConfig(adapter="table", table="../labels.tsv"), Store.open(str(root)))


def test_absolute_paths_below_the_corpus_or_its_former_place(root: Path) -> None:
    listing = read(root, rows(f"{root}/a.wav", f"file://{root}/b.wav"))
    assert [u.path for u in listing.utterances] == ["a.wav", "b.wav"]
    moved = read(root, rows("/former/place/a.wav", "b.wav"), audio_root="/former/place/")
    assert [u.path for u in moved.utterances] == ["a.wav", "b.wav"]
    assert moved.stamp == read(root, rows("a.wav", "b.wav")).stamp


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname",
        "/former/place/../../etc/hostname",
        "/former/placebo/a.wav",
        "/former/place/out/secret.wav",
        "/former/place/out.wav",
        "{root}/../secret.wav",
        "{root}/out/secret.wav",
        "s3://bucket/a.wav",
        "../secret.wav",
    ],
)
def test_no_path_leaves_the_corpus(root: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.wav").write_bytes(b"RIFF")
    (root / "out").symlink_to(tmp_path)
    (root / "out.wav").symlink_to(tmp_path / "secret.wav")
    text = rows(path.format(root=root), "a.wav")
    listing = read(root, text, audio_root="/former/place", max_bad_fraction=0.5)
    assert [u.path for u in listing.utterances] == ["a.wav"]
    (problem,) = listing.problems
    assert "leaves the corpus" in str(problem)
    assert "corpus.audio_root" in str(problem)


def test_another_name_of_the_corpus_is_the_corpus(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    listing = read(tmp_path / "link", rows(f"{root}/a.wav", f"{tmp_path}/link/b.wav"))
    assert [u.path for u in listing.utterances] == ["a.wav", "b.wav"]


def test_doctor_finds_absolute_paths(root: Path) -> None:
    read(root, rows(f"{root}/a.wav"))
    config = RunConfig.model_validate(
        {"corpus": {"adapter": "table"}, "runtime": {"corpus": str(root)}}
    )
    found = next(check_corpus(config, 5.0, 5.0))
    assert (found.severity, found.value) == ("ok", "1 utterance listed")
    (root / "a.wav").unlink()
    missing = next(check_corpus(config, 5.0, 5.0))
    assert missing.severity == "fatal"


NO_GENDER = "id,path,speaker,emotion\nu0,a.wav,s0,joy\nu1,b.wav,s1,anger\n"
ABLATION = '[folds]\nby = "speaker"\n[warmup]\ngender_weight = 0\n[cluster]\ngender = "none"\n'


def test_a_corpus_without_gender(root: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(root, NO_GENDER)
    assert "tells no gender of any of its 2 utterances" in caught.value.message
    for key in ("corpus.columns.gender", "warmup.gender_weight = 0", "cluster.gender = 'none'"):
        assert key in caught.value.message
    empty = "id,path,speaker,emotion,gender\nu0,a.wav,s0,joy,\nu1,b.wav,s1,anger,\n"
    for text in (NO_GENDER, empty):
        listing = read(root, text, gender_needed=False)
        assert {u.gender for u in listing.utterances} == {"unknown"}


def test_a_gender_that_is_not_known_is_bad_only_where_it_is_needed(root: Path) -> None:
    text = rows("a.wav", "b.wav").replace("s1,f", "s1,Unknown")
    with pytest.raises(CorpusError, match="gender 'Unknown' is not known; use female or male"):
        read(root, text)
    listing = read(root, text, gender_needed=False)
    assert [u.gender for u in listing.utterances] == ["female", "unknown"]


@pytest.mark.parametrize(
    ("cluster", "weight", "needed"),
    [
        ({"gender": "none"}, 0, False),
        ({"gender": "none", "balance": "gender"}, 0, True),
        ({"gender": "by_gender"}, 0, True),
        ({"gender": "multitask"}, 0.1, True),
    ],
)
def test_what_needs_gender(cluster: dict[str, object], weight: float, needed: bool) -> None:
    config = parse_config({"cluster": cluster, "warmup": {"gender_weight": weight}}, "x.toml")
    assert config.needs_gender == needed


def test_corpora_check_of_a_corpus_without_gender(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "manifest.csv").write_text(NO_GENDER)
    head = f'[corpus]\nadapter = "table"\n[runtime]\ncorpus = "{root}"\n'
    (tmp_path / "x.toml").write_text(head)
    assert main(["corpora", "check", "-c", str(tmp_path / "x.toml")]) == 2
    assert "cluster.gender = 'none'" in capsys.readouterr().err
    (tmp_path / "x.toml").write_text(head + ABLATION)
    assert main(["corpora", "check", "-c", str(tmp_path / "x.toml")]) == 0
    out = capsys.readouterr().out
    assert "unknown" in out
    assert "2 utterances of 2 speakers" in out


def stereo(left: np.ndarray, right: np.ndarray) -> bytes:
    file = io.BytesIO()
    sf.write(file, np.stack([left, right], axis=1), 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


NOISE = np.random.default_rng(0).normal(0, 0.1, 16_000)
OTHER = np.random.default_rng(1).normal(0, 0.1, 16_000)


def test_a_channel_can_be_chosen() -> None:
    data = stereo(NOISE * 0.1, OTHER)
    first, loudest, mean = (decode_pcm16(data, channel=c) for c in ("first", "loudest", "mean"))
    exact = np.rint(NOISE * 0.1 * 32768)
    assert np.abs(first - exact).max() <= 1
    assert np.abs(loudest - np.rint(OTHER * 32768)).max() <= 1
    assert np.array_equal(mean, decode_pcm16(data))
    assert not np.array_equal(mean, first)


@pytest.mark.parametrize("right", [-NOISE, -NOISE * 0.99, -NOISE + 1e-4 * OTHER])
def test_channels_that_cancel_are_named_instead_of_stored_as_silence(right: np.ndarray) -> None:
    with pytest.raises(CorpusError, match=r"its 2 channels cancel.*; give one channel of it$"):
        decode_pcm16(stereo(NOISE, right))
    for channel in ("first", "loudest"):
        assert decode_pcm16(stereo(NOISE, right), channel=channel).any()


@pytest.mark.parametrize("right", [OTHER, 0 * NOISE, NOISE, -0.5 * NOISE])
def test_other_stereo_is_mixed(right: np.ndarray) -> None:
    assert decode_pcm16(stereo(NOISE, right)).any()
    with pytest.raises(CorpusError, match="holds only digital silence"):
        decode_pcm16(stereo(0 * NOISE, 0 * NOISE))


def test_the_keys_are_hashed_only_where_they_are_not_the_default() -> None:
    keys = {"delimiter", "audio_root", "channel"}
    assert not keys & set(hashed(CorpusConfig()))
    assert hashed(CorpusConfig(channel="loudest"))["channel"] == "loudest"


@pytest.mark.parametrize("table", ["c.toml", "two_quotes.toml"])
def test_the_handed_table_with_a_stray_quotation_mark(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    table: str,
) -> None:
    monkeypatch.chdir(handed_case("stray-quote-swallows-rows", tmp_path))
    assert main(["corpora", "check", "--config", table]) == CorpusError.exit_code
    assert "a quotation mark is not closed" in capsys.readouterr().err


@pytest.mark.parametrize("column", range(6))
@pytest.mark.parametrize("blank_line", [False, True])
def test_two_stray_quotation_marks_in_one_column_join_no_rows(
    root: Path, column: int, blank_line: bool
) -> None:
    """One before a value, one behind that of the next row: together they look like a quoted value."""
    cells = [[f"u{i}", "a.wav", f"s{i}", "f", "sad", "hello"] for i in range(5)]
    cells[2][column] = '"' + cells[2][column]
    cells[3][column] += '"'
    lines = [HEADER, *(",".join(row) for row in cells)]
    if blank_line:
        lines.insert(4, "")
    with pytest.raises(CorpusError, match=r"lines 4 to [56] are one row"):
        read(root, "\n".join(lines) + "\n")


def test_values_of_several_lines_with_delimiters_are_read(root: Path) -> None:
    text = (
        HEADER + '\nu0,a.wav,s,f,sad,"yes, well\n\nno, never, ever\nhm, no"\nu1,b.wav,s,f,sad,x\n'
    )
    assert len(read(root, text).utterances) == 2

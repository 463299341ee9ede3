"""The checks that every adapter's utterances go through."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from gmp_atl_dist import plugins
from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora import reading
from gmp_atl_dist.corpora.base import Corpus, Listed, Problem, adapter_names, find_adapter
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.filesystem import Store


class Planted:
    """An adapter that lists what it is told to."""

    name = "planted"
    default_emotions = ("happy", "sad")

    def __init__(self, utterances: list[Utterance], problems: list[Problem]) -> None:
        self._listed = (utterances, problems)

    def list(self, source: Store, config: CorpusConfig) -> Listed:
        utterances, problems = self._listed
        return [*utterances], [*problems]


GOOD = Utterance("u1", "a/u1.wav", "s1", "female", "happy")


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lists the given utterances over a corpus of a/u1.wav to a/u4.wav and an empty file."""
    (tmp_path / "a").mkdir()
    for i in range(1, 5):
        (tmp_path / "a" / f"u{i}.wav").write_bytes(b"x" * i)
    (tmp_path / "a" / "empty.wav").write_bytes(b"")
    (tmp_path / "outside.wav").write_bytes(b"x")

    def read(
        *utterances: Utterance, problems: tuple[Problem, ...] = (), **config: object
    ) -> CorpusListing:
        planted = Planted(list(utterances), list(problems))
        monkeypatch.setattr(reading, "find_adapter", lambda _: planted)
        return read_corpus(CorpusConfig.model_validate(config), Store.open(str(tmp_path)))

    return read


BAD = {
    "audio file 'a/none.wav' is missing": replace(GOOD, path="a/none.wav"),
    "is empty \\(0 bytes\\)": replace(GOOD, path="a/empty.wav"),
    "'../outside.wav' leaves the corpus": replace(GOOD, path="../outside.wav"),
    "'a/../../x.wav' leaves the corpus": replace(GOOD, path="a/../../x.wav"),
    "'/etc/passwd' leaves the corpus": replace(GOOD, path="/etc/passwd"),
    "'' leaves the corpus": replace(GOOD, path=""),
    "emotion 'bored' is not a class \\(happy, sad\\)": replace(GOOD, emotion="bored"),
    "gender 'x' is not known": replace(GOOD, gender="x"),  # pyright: ignore[reportArgumentType]
    "has no speaker": replace(GOOD, speaker=" "),
    "has no id": replace(GOOD, utterance_id=""),
    "end_s 1 is not after start_s 2": replace(GOOD, start_s=2.0, end_s=1.0),
    "end_s 0 is not after start_s 0": replace(GOOD, end_s=0.0),
    "start_s is -1": replace(GOOD, start_s=-1.0),
    "end_s is nan": replace(GOOD, end_s=float("nan")),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_item_stops_the_run_or_is_dropped(plant, reason: str) -> None:
    other = replace(GOOD, utterance_id="ok", path="a/u2.wav")
    with pytest.raises(CorpusError, match=reason):
        plant(BAD[reason], other)
    listing = plant(BAD[reason], other, max_bad_fraction=1.0)
    assert [u.utterance_id for u in listing.utterances] == ["ok"]
    assert [p.item for p in listing.problems] == [f"utterance {BAD[reason].utterance_id!r}"]
    assert listing.sizes == {"a/u2.wav": 2}
    assert (listing.num_bad, listing.num_listed) == (1, 2)


def test_bad_items_are_left_out_up_to_the_fraction(plant) -> None:
    good = [replace(GOOD, utterance_id=f"u{i}") for i in range(97)]
    bad = [replace(GOOD, utterance_id=f"bad{i}", speaker="", path="none") for i in range(2)]
    line = Problem("line 7", "cannot be read")
    listing = plant(*good, *bad, problems=(line,), max_bad_fraction=0.03)
    assert [u.utterance_id for u in listing.utterances] == sorted(u.utterance_id for u in good)
    assert (listing.num_bad, listing.num_listed) == (3, 100), "items, and not their five reasons"
    assert Counter(p.item for p in listing.problems) == {
        "line 7": 1,
        "utterance 'bad0'": 2,
        "utterance 'bad1'": 2,
    }
    expected = r"3 of 100 .* fraction of 0\.03, and corpus\.max_bad_fraction is 0\.029; repair them"
    for fraction in (0.029, 0):
        with pytest.raises(CorpusError, match=expected if fraction else r"max_bad_fraction is 0;"):
            plant(*good, *bad, problems=(line,), max_bad_fraction=fraction)


def test_the_fraction_is_of_the_classes_asked_for(plant) -> None:
    other = [replace(GOOD, utterance_id=f"u{i}", emotion="bored") for i in range(98)]
    bad = replace(GOOD, utterance_id="bad", speaker="")
    with pytest.raises(CorpusError, match="1 of 2 utterances are bad"):
        plant(GOOD, bad, *other, ignore_other_emotions=True, max_bad_fraction=0.4)


def test_all_bad_items_are_reported_at_once(plant) -> None:
    with_id = [u for u in BAD.values() if u.utterance_id]
    bad = [replace(u, utterance_id=f"bad{i}") for i, u in enumerate(with_id)]
    with pytest.raises(CorpusError) as caught:
        plant(*bad, problems=(Problem("line 7", "cannot be read"),))
    for i in range(len(bad)):
        assert f"utterance 'bad{i}'" in caught.value.message
    assert "line 7: cannot be read" in caught.value.message
    assert f"{len(bad) + 1} of {len(bad) + 1} utterances" in caught.value.message


def test_of_a_duplicate_id_the_first_copy_is_kept(plant) -> None:
    copies = [replace(GOOD, path=f"a/u{i}.wav") for i in (3, 1, 2)]
    with pytest.raises(CorpusError, match="'u1': its id occurs more than once"):
        plant(*copies)
    listing = plant(*copies, max_bad_fraction=1.0)
    assert [u.path for u in listing.utterances] == ["a/u3.wav"]
    assert len(listing.problems) == 2
    assert listing.num_bad == 2


def test_everything_gets_its_one_spelling_and_order(plant) -> None:
    listing = plant(
        Utterance("u2", "./a//u2.wav", "s1", "W", "SAD "),  # pyright: ignore[reportArgumentType]
        Utterance("u1", "a/u1.wav", "s2", "Male", "Happy"),  # pyright: ignore[reportArgumentType]
    )
    assert listing.utterances == (
        Utterance("u1", "a/u1.wav", "s2", "male", "happy"),
        Utterance("u2", "a/u2.wav", "s1", "female", "sad"),
    )
    assert listing.sizes == {"a/u1.wav": 1, "a/u2.wav": 2}
    assert listing.emotions == ("happy", "sad")
    assert listing.problems == ()


def test_merge_renames_before_the_class_list_is_asked(plant) -> None:
    excited = replace(GOOD, emotion="Excited")
    listing = plant(excited, merge={"excited": "HAPPY"})
    assert listing.utterances[0].emotion == "happy"
    assert plant(GOOD, merge={"happy": "sad"}).emotions == ("sad",)


def test_the_configured_class_list_keeps_its_order_and_spelling(plant) -> None:
    sad = Utterance("u2", "a/u2.wav", "s1", "female", "sad")
    listing = plant(GOOD, sad, emotions=["Sad", "Happy"])
    assert listing.emotions == ("Sad", "Happy")
    assert [u.emotion for u in listing.utterances] == ["Happy", "Sad"]


def test_other_emotions_are_left_out_only_when_asked(plant) -> None:
    bored = Utterance("u2", "a/none.wav", "s1", "female", "bored")
    listing = plant(GOOD, bored, ignore_other_emotions=True)
    assert listing.problems == ()
    assert listing.num_ignored == 1
    assert len(listing.utterances) == 1
    assert plant(GOOD).num_ignored == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"emotions": ["happy", "Happy"]}, "listed twice"),
        ({"emotions": ["happy", " "]}, r"corpus.emotions\[1\]: is empty"),
        ({"emotions": ["happy", "sad"], "merge": {"sad": "happy"}}, "it never occurs"),
        ({"emotions": ["hapy"], "ignore_other_emotions": True, "max_bad_fraction": 1}, None),
        ({"emotions": ["happy", "angry"]}, "no utterance has 'angry'; the corpus has happy"),
    ],
)
def test_a_class_list_that_cannot_be_meant_is_refused(
    plant, config: dict[str, object], message: str | None
) -> None:
    with pytest.raises(
        ConfigError if message else CorpusError, match=message or "listed 1 utterance, and none"
    ):
        plant(GOOD, **config)


def test_no_utterance_left_is_an_error_that_says_why(plant) -> None:
    with pytest.raises(CorpusError, match=r"listed 0 utterances, and none of them is usable"):
        plant()
    with pytest.raises(CorpusError, match=r"listed 1 utterance(.|\n)*has no speaker"):
        plant(replace(GOOD, speaker=""), max_bad_fraction=1.0)


def test_the_stamp_follows_files_and_table_and_nothing_else(plant, tmp_path: Path) -> None:
    first = plant(GOOD).stamp
    assert len(first) == 64
    (tmp_path / "a" / "unused.wav").write_bytes(b"new")
    assert plant(GOOD).stamp == first
    stamps = {
        first,
        plant(replace(GOOD, speaker="s2")).stamp,
        plant(replace(GOOD, end_s=1.0)).stamp,
    }
    audio = tmp_path / "a" / "u1.wav"
    status = audio.stat()
    os.utime(audio, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    stamps.add(plant(GOOD).stamp)
    audio.write_bytes(b"longer")
    os.utime(audio, ns=(status.st_atime_ns, status.st_mtime_ns))
    stamps.add(plant(GOOD).stamp)
    assert len(stamps) == 5


def test_the_whole_corpus_is_listed_once(plant, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    original = Store.list

    def counting(self: Store, prefix: str = ""):
        listed.append(prefix)
        return original(self, prefix)

    monkeypatch.setattr(Store, "list", counting)
    plant(*(replace(GOOD, utterance_id=f"u{i}", path=f"a/u{i}.wav") for i in range(1, 5)))
    assert listed == [""]


@pytest.mark.parametrize("name", ["iemocap", "synthetic", "table"])
def test_built_in_adapters_are_found_without_installation(name: str) -> None:
    assert isinstance(find_adapter(name), Corpus)
    assert name in adapter_names()


class _Point:
    """An installed entry point."""

    def __init__(self, name: str, found: object) -> None:
        self.name = name
        self._found = found

    def load(self) -> object:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


def test_adapters_of_other_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ours(Planted):
        def __init__(self) -> None:
            super().__init__([], [])

    points = [_Point("ours", Ours), _Point("broken", ImportError("no libfoo")), _Point("odd", 3)]

    def entry_points(group: str, name: str | None = None) -> list[_Point]:
        assert group == "gmp_atl_dist.corpora"
        return [p for p in points if name in (None, p.name)]

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    assert find_adapter("ours").name == "planted"
    assert set(adapter_names()) >= {"ours", "iemocap"}
    with pytest.raises(ConfigError, match=r"'broken' cannot be loaded \(ImportError: no libfoo\)"):
        find_adapter("broken")
    with pytest.raises(ConfigError, match="'odd' has type int and lacks name"):
        find_adapter("odd")
    with pytest.raises(ConfigError, match=r"'iemocp' is not known; known are .*iemocap"):
        find_adapter("iemocp")

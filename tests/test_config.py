from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.config import AuditConfig, RunConfig, canonical_json, digest
from gmp_atl_dist.config.file import load_config, parse_config
from gmp_atl_dist.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = sorted(
    path for path in (REPOSITORY / "configs").glob("**/*.toml") if path.parent.name != "sweeps"
)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes x.toml into the working folder, so that messages are the same everywhere."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "x.toml").write_text(text)
        return "x.toml"

    return write


def test_an_empty_file_is_a_whole_configuration(write) -> None:
    assert load_config(write("")) == RunConfig()


def test_a_given_length_replaces_the_default_of_the_other_kind(write) -> None:
    config = load_config(write("[warmup]\nsteps = 3\n[retrain]\nepochs = 2"))
    assert (config.warmup.steps, config.warmup.epochs) == (3, None)
    assert (config.retrain.steps, config.retrain.epochs) == (None, 2)
    assert (config.finetune.steps, config.finetune.epochs) == (None, 40)


def test_a_section_is_read(write) -> None:
    config = load_config(
        write("[warmup]\nlr = 0.5\n[[cluster.scales]]\nlayer = 9\nk = 7\n[extract]\nlayers = [9]")
    )

    assert config.warmup.lr == 0.5
    assert [(s.layer, s.k) for s in config.cluster.scales] == [(9, 7)]
    assert config.finetune == RunConfig().finetune


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "[warmup]\nvelocity = 1",
            ["x.toml: warmup.velocity: unknown key; known here: adam_eps, batch_s, "],
        ),
        (
            "[wramup]\nlr = 1",
            ["x.toml: wramup: unknown section; did you mean warmup? known here: audit, "],
        ),
        (
            "[[cluster.scales]]\nlayer = 9\nk = 50\nkay = 1",
            ["x.toml: cluster.scales[0].kay: unknown key; known here: codebook, k, layer, seed"],
        ),
        (
            "[[cluster.scales]]\nlayer = 9\nk = 1",
            ["x.toml: cluster.scales[0].k = 1: fewer than two", "give 2 or more, e.g. 50"],
        ),
        (
            "[runtime.train]\nworker = 2",
            ["x.toml: runtime.train.worker: unknown key; did you mean workers? known "],
        ),
        ("[warmup]\nlr = 'fast'", ["x.toml: warmup.lr = 'fast': expected a number above 0"]),
        ("[warmup]\nlr = -1", ["x.toml: warmup.lr = -1: expected a number above 0"]),
        ("[warmup]\nlr = nan", ["x.toml: warmup.lr = nan: expected a number above 0"]),
        (
            "[folds]\nprotocol = 'open'",
            [
                "x.toml: folds.protocol = 'open': expected 'clean', 'transductive', 'peek' or "
                "'speaker_dependent'"
            ],
        ),
        (
            "warmup = 3",
            ["x.toml: warmup = 3: expected a section or table with the keys adam_eps, batch_s, "],
        ),
        (
            "[warmup]\nsteps = 3\nepochs = 10",
            ["x.toml: warmup: steps = 3 and epochs = 10: give exactly one"],
        ),
        ("[extract]\nlayers = [9, 9]", ["x.toml: extract", "names one twice; list each once"]),
        (
            "[finetune]\nselect = 'valid'",
            ["x.toml: finetune.select: 'valid' needs speakers", "set folds.valid = 'next'"],
        ),
        (
            "[runtime.train]\nzero_stage = 3\nworkers = [1, 2]",
            ["x.toml: runtime.train: zero_stage = 3 with workers = [1, 2]", "give one number"],
        ),
        ("[runtime.train]\nzero_stage = 4", ["zero_stage = 4: expected 1, 2 or 3"]),
        (
            "[pretrain]\niterations = 1",
            [
                "pretrain.iterations: 1 with model.source = 'facebook/",
                "set model.source = 'random:",
            ],
        ),
        ("[pretrain]\niterations = 3", ["x.toml: pretrain.iterations = 3: expected 0, 1 or 2"]),
        ("[pretrain]\nk = [100]", ["x.toml: pretrain.k"]),
        (
            "[model]\nsource = 'random:tiny'\n[pretrain]\niterations = 1\nfreeze_conv = true",
            ["x.toml: pretrain.freeze_conv: true would leave", "set it to false"],
        ),
        (
            "[model]\nsource = 'random:tiny'\n[pretrain]\niterations = 1\nmicro_batches = 1\n"
            "[runtime.train]\nworkers = 2",
            ["x.toml: pretrain.micro_batches = 1", "some of runtime.train.workers = 2"],
        ),
        ("[cluster]\nscales = [{ layer = 0, k = 5 }]", ["layer: 0 is not in extract.layers"]),
        (
            "[runtime.train]\nworkers = 1000",
            ["x.toml: warmup.micro_batches = 4", "some of runtime.train.workers = 1000"],
        ),
    ],
)
def test_a_wrong_key_is_named_with_what_to_do(write, text: str, lines: list[str]) -> None:
    with pytest.raises(ConfigError) as e:
        load_config(write(text))

    assert e.value.message.startswith("x.toml is not usable:\n")
    for line in lines:
        assert line in e.value.message


def test_a_scale_of_a_layer_that_is_not_extracted(write) -> None:
    path = write(
        "[extract]\nlayers = [6, 9, 12]\n"
        "[cluster]\nscales = [{layer = 9, k = 50}, {layer = 13, k = 50}]"
    )

    with pytest.raises(ConfigError) as e:
        load_config(path)

    assert e.value.message == (
        "x.toml is not usable:\n"
        "  - x.toml: cluster.scales[1].layer: 13 is not in extract.layers [6, 9, 12]; add it there"
    )


def test_all_problems_are_named_at_once(write) -> None:
    path = write("[warmup]\nlr = -1\n[extract]\nlayers = []\n[corpus]\nadaptor = 'x'")

    with pytest.raises(ConfigError) as e:
        load_config(path)

    assert len(e.value.message.splitlines()) == 1 + 3
    for key in ("warmup.lr = -1", "extract.layers = []", "corpus.adaptor"):
        assert f"  - x.toml: {key}: " in e.value.message


def test_a_missing_file(write) -> None:
    with pytest.raises(ConfigError, match=r"^none\.toml: cannot be read \(No such file"):
        load_config("none.toml")


@pytest.mark.parametrize("text", ["[warmup", "a = ", "lr = 1\nlr = 2"])
def test_what_is_not_toml(write, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^x\.toml: is not TOML: .* \(at .*\)"):
        load_config(write(text))


def test_what_is_not_text(write, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match=r"^x\.toml: is not TOML"):
        load_config("x.toml")


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("warmup.lr=1e-3", "warmup", "lr", 1e-3),
        ("warmup.lr = 1e-3", "warmup", "lr", 1e-3),
        ("corpus.adapter=table", "corpus", "adapter", "table"),
        ("corpus.adapter='table'", "corpus", "adapter", "table"),
        ("cluster.gender=by_gender", "cluster", "gender", "by_gender"),
        ("folds.run=[1, 3]", "folds", "run", (1, 3)),
        ("corpus.merge={excited = 'happy'}", "corpus", "merge", {"excited": "happy"}),
        ("corpus.merge.excited=happy", "corpus", "merge", {"excited": "happy"}),
        ("model.source=s3://bucket/model=1", "model", "source", "s3://bucket/model=1"),
    ],
)
def test_set_replaces_one_value(write, override: str, section: str, key: str, value) -> None:
    config = load_config(write("[warmup]\nlr = 0.5\nseed = 3"), [override])

    assert getattr(getattr(config, section), key) == value
    assert config.warmup.seed == 3


def test_the_last_set_wins(write) -> None:
    assert load_config(write(""), ["warmup.seed=1", "warmup.seed=2"]).warmup.seed == 2


@pytest.mark.parametrize("override", ["warmup.lr", "=1", "warmup..lr=1", ".lr=1", ""])
def test_a_set_of_another_form(write, override: str) -> None:
    with pytest.raises(ConfigError, match=r"is not of the form a\.b=c"):
        load_config(write(""), [override])


def test_a_set_below_a_value(write) -> None:
    with pytest.raises(ConfigError, match="'lr' is a value, not a section"):
        load_config(write("[warmup]\nlr = 1"), ["warmup.lr.x=1"])


def test_a_set_of_an_unknown_key(write) -> None:
    with pytest.raises(ConfigError, match=r"warmup\.speed: unknown key"):
        load_config(write(""), ["warmup.speed=1"])


def test_runtime_is_no_science(write) -> None:
    path = write("")
    plain = load_config(path)
    other = load_config(
        path,
        ["runtime.train.workers=4", "runtime.root=s3://b/p", "runtime.extract.gpus=0.5"],
    )

    assert "runtime" not in plain.science()
    assert other.runtime != plain.runtime
    assert other.science() == plain.science()
    assert digest(other.science()) == digest(plain.science())


def test_every_other_section_is_science() -> None:
    pretrained = {"model": {"source": "random:small"}, "pretrain": {"iterations": 1}}
    science = parse_config(pretrained, "x.toml").science()
    # A section that was added later is left out at its defaults.
    assert set(science) == set(RunConfig.model_fields) - {"runtime", "audit", "corpora", "seed"}
    limits = parse_config(pretrained | {"audit": {"narrow_hz": 3500.0}}, "x.toml").science()
    assert limits["audit"] == {**AuditConfig().model_dump(), "narrow_hz": 3500.0}
    assert set(RunConfig().science()) == set(science) - {"pretrain"}, "off, it is none"


def test_pretraining_shares_what_frame_prediction_has(write) -> None:
    config = load_config(
        write(
            "[model]\nsource = 'random:small'\n[retrain]\nmask_prob = 0.5\n"
            "[pretrain]\niterations = 2\nepochs = 3\nsecond_steps = 7\nmask_prob = 0.6"
        )
    )
    assert (config.retrain.mask_prob, config.pretrain.mask_prob) == (0.5, 0.6)
    first, second = (config.pretrain.training(n) for n in (1, 2))
    assert (first.epochs, first.steps) == (3, None)
    assert (second.epochs, second.steps) == (None, 7)
    assert {first.freeze_conv, second.freeze_conv} == {False}
    scales = [config.pretrain.clusters(n).scales for n in (1, 2)]
    assert [[(s.layer, s.k) for s in found] for found in scales] == [[(0, 100)], [(6, 500)]]


def test_science_is_json_with_one_spelling() -> None:
    text = canonical_json(RunConfig().science())

    assert text.isascii()
    assert "\n" not in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), min_size=2))
def test_a_digest_does_not_follow_the_order_of_keys(value) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_a_checked_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().warmup.lr = 1.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    load_config(path)


@pytest.mark.parametrize(
    ("gender", "weight", "fine"),
    [
        ("multitask", 0.1, True),
        ("none", 0, True),
        ("by_gender", 0, True),
        ("by_gender", 0.3, True),
        ("none", 0.1, False),
        ("multitask", 0, False),
    ],
)
def test_the_ablation_of_gender_is_of_the_warm_up_too(
    gender: str, weight: float, fine: bool
) -> None:
    raw = {"cluster": {"gender": gender}, "warmup": {"gender_weight": weight}}
    if fine:
        assert parse_config(raw, "x.toml").cluster.gender == gender
        return
    with pytest.raises(
        ConfigError, match=rf"cluster.gender: '{gender}' with warmup.gender_weight = {weight:g}"
    ):
        parse_config(raw, "x.toml")


def test_sample_frames_may_be_all() -> None:
    assert parse_config({"cluster": {"sample_frames": "all"}}, "x").cluster.sample_frames == "all"
    with pytest.raises(ConfigError, match="sample_frames"):
        parse_config({"cluster": {"sample_frames": "most"}}, "x")


def test_custom_resources_are_checked_and_hashed_nowhere(write) -> None:
    train = "[runtime.train]\nresources = { gang = 1 }\n"
    config = load_config(write(f"{train}[runtime.extract]\nreader_resources = {{ decode = 0.5 }}"))

    assert config.runtime.train.resources == {"gang": 1}
    assert config.runtime.extract.reader_resources == {"decode": 0.5}
    assert config.science() == RunConfig().science()
    label = "[runtime.label]\nresources = { GPU = 1 }\n"
    with pytest.raises(ConfigError) as caught:
        load_config(write(f"{label}[runtime.train]\nresources = {{ a = 1.5 }}"))
    assert "x.toml: runtime.label.resources: 'GPU' is no custom resource; use cpus and gpus" in str(
        caught.value
    )
    assert "x.toml: runtime.train.resources: a = 1.5: Ray divides" in str(caught.value)


SEEDED = ("model", "pretrain", "warmup", "cluster", "retrain", "finetune")


def seeds_of(config: RunConfig) -> dict[str, int]:
    return {name: getattr(config, name).seed for name in SEEDED}


def test_one_seed_reaches_all_that_is_fitted_and_no_split(write) -> None:
    config = load_config(write('seed = 7\n[model]\nsource = "random:tiny"\n[warmup]\nseed = 3'))
    assert seeds_of(config) == {**dict.fromkeys(SEEDED, 7), "warmup": 3}
    assert (config.folds.seed, config.evaluate.seed) == (0, 0)
    # Of both iterations of pretraining, and of their codebooks.
    assert {config.pretrain.training(1).seed, config.pretrain.clusters(2).seed} == {7}


def test_a_checkpoint_from_elsewhere_has_no_seed(write) -> None:
    assert load_config(write("seed = 7")).model == RunConfig().model
    stated = load_config(write('seed = 7\n[model]\nsource = "some/where"\nseed = 5'))
    assert stated.model.seed == 5


def test_the_seed_is_hashed_where_it_takes_effect_and_nowhere_else(write) -> None:
    text = '[model]\nsource = "random:tiny"\n[pretrain]\niterations = 1\n'
    plain, zero = load_config(write(text)), load_config(write(f"seed = 0\n{text}"))
    # 0 is the seed of every section, so nothing changes; and the key itself is in no digest.
    assert plain.science() == zero.science()
    assert plain.seed is None
    assert zero.seed == 0
    one = load_config(write(f"seed = 1\n{text}"))
    sections: dict[str, dict[str, object]] = {name: {"seed": 1} for name in SEEDED}
    sections["model"]["source"], sections["pretrain"]["iterations"] = "random:tiny", 1
    assert parse_config(sections, "by hand").science() == one.science() != zero.science()
    # A recorded configuration names both, and comes out the same.
    assert parse_config(one.model_dump(mode="json", exclude_none=True), "a record") == one


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('seed = "one"', "x.toml: seed = "),
        ("seed = true", "x.toml: seed = true"),
        ("seed = 1\nmodel = 3", "x.toml: model = 3"),
    ],
)
def test_a_wrong_seed_is_named(write, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("gpus", "advice"),
    [
        ("train.gpus=2", "write gpus = 1"),
        ("train.gpus=0.5", "write gpus = 1 with workers = the number of GPUs, or gpus = 0"),
        ("extract.gpus=2", "write gpus = 1 and raise workers"),
        ("ingest.gpus=1", "write gpus = 0"),
        ("cluster.gpus=1.5", "write a fraction up to 1, or 1 or 2"),
        ("label.gpus=2.5", "write a fraction up to 1, or 2 or 3"),
    ],
)
def test_gpus_that_no_process_can_use_are_refused_with_what_to_write(
    gpus: str, advice: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(advice)) as e:
        load_config("demo", [f"runtime.{gpus}"])
    assert gpus.partition(".")[0] in e.value.message


@pytest.mark.parametrize("gpus", ["train.gpus=1", "extract.gpus=0.5", "cluster.gpus=4"])
def test_gpus_that_a_process_can_use(gpus: str) -> None:
    name, _, value = gpus.partition(".gpus=")
    section = getattr(load_config("demo", [f"runtime.{gpus}"]).runtime, name)
    assert section.gpus == float(value)

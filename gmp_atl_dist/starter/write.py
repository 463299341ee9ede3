"""The text of a first configuration: every key with a comment that says why it has that value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gmp_atl_dist.config.toml_text import toml_value
from gmp_atl_dist.records import UNKNOWN_GENDER
from gmp_atl_dist.starter.find_corpus import FoundCorpus
from gmp_atl_dist.starter.machine import MachineFacts
from gmp_atl_dist.starter.plan import Plan
from gmp_atl_dist.wording import counted


@dataclass(frozen=True)
class Line:
    """A key, its value, and the comment above it."""

    key: str
    value: object
    why: str


def summary(found: FoundCorpus, machine: MachineFacts, plan: Plan, hours: float) -> list[str]:
    """What was found and chosen, a sentence each."""
    listing = found.listing
    genders = sorted({u.gender for u in listing.utterances})
    told = "no gender" if genders == [UNKNOWN_GENDER] else f"gender {', '.join(genders)}"
    names = {"iemocap": "IEMOCAP", "table": f"table {found.config.table}"}
    kind = names.get(found.config.adapter, f"adapter {found.config.adapter}")
    gpus = f", {machine.gpus} GPUs" if machine.gpus else ", no GPU"
    rates = "; ".join(f"{name} {rate:,.0f}" for name, rate in plan.tried)
    busy = (
        f"The machine was busy (load {machine.load:.1f}), so these rates are too low; write the file again "
        f"when it is idle."
    )
    offline = "The hub of models cannot be reached, so no pre-trained model was considered."
    return [
        f"Corpus: {kind}, {counted(len(listing.utterances), 'utterance')} of "
        f"{counted(len(found.speakers), 'speaker')}, "
        f"about {found.total_s / 60:.0f} min, {told}.",
        f"Emotions: {', '.join(listing.emotions)}.",
        f"Machine: {machine.cores} cores, {machine.memory_gib:.0f} GiB{gpus}.",
        f"Measured: seconds of audio trained per second: {rates}.",
        *([busy] if machine.load > machine.cores / 2 else []),
        *([] if machine.hub else [offline]),
        f"Chosen: {plan.model.source}, the largest model that passes often enough over "
        f"{plan.training_s / 60:.0f} min of training audio in {hours:g} h.",
        f"Expected: about {plan.expected_s / 60:.0f} min for one fold, if nothing else uses the "
        f"machine.",
    ]


def configuration(
    found: FoundCorpus, machine: MachineFacts, plan: Plan, hours: float, root: str
) -> str:
    """The TOML document."""
    parts = [
        "# Written by gmp-atl config init. Every key that is not here keeps its default; "
        "gmp-atl config check",
        "# prints all of them, and gmp-atl config schema --markdown explains them.",
        "#",
        *(f"# {sentence}" for sentence in summary(found, machine, plan, hours)),
    ]
    for name, lines in _sections(found, machine, plan, root):
        parts += ["", f"[{name}]"]
        for line in lines:
            parts += [f"# {line.why}", f"{line.key} = {toml_value(line.value)}"]
    return "\n".join(parts) + "\n"


def _sections(
    found: FoundCorpus, machine: MachineFacts, plan: Plan, root: str
) -> list[tuple[str, list[Line]]]:
    genders = {u.gender for u in found.listing.utterances}
    without_gender = UNKNOWN_GENDER in genders or len(genders) == 1
    model = plan.model
    # k-means needs many more frames than clusters; a second has 50 frames.
    k = max(2, min(50, int(plan.training_s * 50 / 100)))
    scales = [{"layer": layer, "k": k} for layer in model.layers]
    warmup = [
        Line("epochs", plan.warmup_epochs, "Passes over the training set; fits the time."),
        *_training(plan),
    ]
    cluster = [
        Line("scales", scales, "One set of pseudo-labels for each layer."),
        Line("sample_frames", 100_000, "Frames in the fit; enough for these numbers of clusters."),
    ]
    if without_gender:
        why = "The corpus does not tell the gender of every speaker, so gender is not used."
        if UNKNOWN_GENDER not in genders:
            why = f"All speakers are {genders.pop()}, so gender is not used."
        warmup.append(Line("gender_weight", 0, why))
        cluster.append(Line("gender", "none", why))
    finetune = [
        Line("epochs", plan.finetune_epochs, "Passes over the training set; fits the time."),
        *_training(plan),
        Line("embedding_dim", model.embedding_dim, "Suits the size of the model."),
    ]
    retrain = [
        Line("steps", plan.retrain_steps, "Updates; fits the time."),
        *(line for line in _training(plan) if line.key != "freeze_conv"),
    ]
    return [
        ("corpus", _corpus(found)),
        ("folds", _folds(found, plan)),
        ("model", [Line("source", model.source, _why_model(plan))]),
        ("warmup", warmup),
        ("extract", [Line("layers", model.layers, "Layers whose features are clustered.")]),
        ("cluster", cluster),
        ("retrain", retrain),
        ("finetune", finetune),
        (
            "runtime",
            [
                Line("corpus", found.folder, "Where the recordings are."),
                Line("root", root, "Where all results go; a folder, or s3://BUCKET/PREFIX."),
            ],
        ),
        *_workers(machine),
    ]


def _corpus(found: FoundCorpus) -> list[Line]:
    config = found.config
    lines = [Line("adapter", config.adapter, "What reads the labels.")]
    if config.adapter == "table":
        lines.append(Line("table", config.table, "The file with one row per utterance."))
    if config.columns:
        lines.append(Line("columns", config.columns, "Our column = the table's column."))
    if config.audio_root:
        lines.append(Line("audio_root", config.audio_root, "What absolute paths begin with."))
    if config.max_bad_fraction != type(config)().max_bad_fraction:
        why = f"{found.listing.num_bad} items are bad, and are left out; see gmp-atl corpora check."
        lines.append(Line("max_bad_fraction", config.max_bad_fraction, why))
    longest_s = 600.0 if found.total_s > 36_000 else 120.0
    return [*lines, Line("part_audio_s", longest_s, "Seconds of audio in a stored part.")]


def _folds(found: FoundCorpus, plan: Plan) -> list[Line]:
    if not plan.groups:
        lines = [Line("by", "session", "One session is held out per fold.")]
        count = 5
    else:
        why = "Groups of speakers that are held out in turn, with both genders where possible."
        lines = [
            Line("by", "speaker", "No speaker is in training and test."),
            Line("held_out", plan.groups, why),
        ]
        count = len(plan.groups)
    why = (
        f"The first fold alone. Remove this line for all {count} folds, and {count} times the time."
    )
    return [*lines, Line("run", [1], why)]


def _why_model(plan: Plan) -> str:
    if plan.model.pretrained:
        return f"Pre-trained, from the hub; {plan.rate:,.0f} s of audio per second here."
    return f"Random weights: needs no download; {plan.rate:,.0f} s of audio per second here."


def _training(plan: Plan) -> Sequence[Line]:
    random = not plan.model.pretrained
    return [
        Line("batch_s", plan.batch_s, "Seconds of audio per update: ten updates a pass or more."),
        Line("lr", plan.model.lr, "Suits the size of the model."),
        *([Line("freeze_conv", False, "Random convolutions must be trained.")] if random else []),
    ]


def _workers(machine: MachineFacts) -> list[tuple[str, list[Line]]]:
    if not machine.gpus:
        why = "Cores of the one process."
        names = ("runtime.extract", "runtime.train")
        return [(name, [Line("cpus", machine.cores, why)]) for name in names]
    each = max(1, machine.cores // machine.gpus)
    workers = {
        "extract": Line(
            "workers", [1, machine.gpus], "One process per GPU, as far as there is room."
        ),
        "train": Line("workers", 1, "All audio of an update on one GPU; others train other folds."),
    }
    return [
        (
            f"runtime.{name}",
            [
                line,
                Line("gpus", 1, "Of each process."),
                Line("cpus", each, "Cores of each process."),
            ],
        )
        for name, line in workers.items()
    ]

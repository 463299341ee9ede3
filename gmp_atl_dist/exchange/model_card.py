"""The model card of an exported model: description, data, results, limits, provenance.

The header follows the hub (https://huggingface.co/docs/hub/model-cards). Its values are JSON, which is
also YAML. A card is meant to be published, so it names no path, no host and no speaker.
"""

from __future__ import annotations

import json

from gmp_atl_dist.audio import MIN_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.exchange.card_facts import CardFacts
from gmp_atl_dist.records import DEFAULT_CHANNEL, Channel
from gmp_atl_dist.report.corpus_content import CorpusContent
from gmp_atl_dist.wording import counted

_POOLINGS = {
    "attentive": "attentive pooling",
    "mean": "mean pooling",
    "statistics": "statistics pooling",
}
_LOSSES = {
    "am_softmax": "AM-Softmax",
    "aam_softmax": "AAM-Softmax",
    "cross_entropy": "cross-entropy",
    "focal": "focal loss",
}
_COSINES = "cosines times `am_scale`, without the margin of the training loss"
_LINEAR = "those of a linear layer"
LOGITS = {
    "am_softmax": _COSINES,
    "aam_softmax": _COSINES,
    "cross_entropy": _LINEAR,
    "focal": _LINEAR,
}
"""What the logits of a classifier are, by its loss."""

_IDENTITY = (
    "That of `ingest` and of `backbone` is the digest of what was read: samples and labels of the corpus, "
    "and the files of the first model. That of every other artefact is its fingerprint, which "
    "`gmp-atl runs show` prints."
)

READ_SAMPLES = (
    'samples, rate = soundfile.read("speech.wav", dtype="float32", always_2d=True)\n'
    "wave = soxr.resample(samples.mean(axis=1), rate, 16000)  # mono, 16 kHz\n"
)
"""Lines of an example that read a recording as the model needs it."""


def render_card(facts: CardFacts) -> str:
    """The text of ``README.md``. The same facts give the same bytes."""
    trained = facts.stage != "backbone"
    parts = [
        _header(facts),
        f"# {facts.title}\n\nThis is {_what(facts)}. It was made by gmp_atl_dist, an "
        f"independent implementation of GMP-ATL (Pan et al., "
        f"[arXiv 2405.02151](https://arxiv.org/abs/2405.02151)). {facts.base_sentence}",
        _use(facts),
        *([_data(facts), _protocol(facts), _results(facts)] if trained else []),
        _limits(facts),
        _provenance(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _what(facts: CardFacts) -> str:
    """What the model is, by the steps that made it."""
    lineage = facts.lineage
    if facts.stage == "backbone":
        return "the unchanged stock HuBERT from which a GMP-ATL run started"
    if facts.stage == "warmup":
        tasks = "emotion and gender" if lineage.warm_up_gender else "emotion"
        labels = lineage.start == "retrain" and lineage.label_model == "warmup"
        use = "; the pseudo-labels are made from its features" if labels else ""
        return f"a HuBERT backbone that was warmed up on {tasks}{use}"
    if facts.stage == "retrain":
        gendered = "gender-augmented " if lineage.gender != "none" else ""
        return (
            f"a HuBERT backbone that was retrained on {gendered}multi-scale pseudo-labels"
            f"{_of_stock(facts)}"
        )
    before = {
        "retrain": f"was retrained on multi-scale pseudo-labels{_of_stock(facts)} and ",
        "warmup": "was warmed up on emotion"
        f"{' and gender' if lineage.warm_up_gender else ''} and, without retraining, ",
        "backbone": "was, without warm-up and retraining, ",
    }[lineage.start]
    frozen = ". Only the head was trained; the HuBERT was left as it was" if lineage.frozen else ""
    return (
        f"a speech-emotion classifier: a HuBERT that {before}fine-tuned with "
        f"{_POOLINGS[facts.pooling]} and {_LOSSES[facts.loss]}{frozen}"
    )


def _of_stock(facts: CardFacts) -> str:
    return " of the first model's features" if facts.lineage.label_model == "backbone" else ""


def _header(facts: CardFacts) -> str:
    classifier = facts.stage == "finetune"
    header: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "audio-classification" if classifier else "feature-extraction",
        # The hub's value for a licence that is not stated.
        "license": "unknown",
        "tags": ["speech-emotion-recognition", "hubert", "gmp-atl"],
    }
    if facts.base_model is not None:
        header["base_model"] = facts.base_model
    if classifier:
        header["metrics"] = ["accuracy", "recall"]
    if classifier and facts.outcome is not None and facts.protocol.warning is None:
        # The hub's tables compare these scores, so only the clean protocol states them.
        scores = facts.outcome.scores
        header["model-index"] = [
            {
                "name": facts.title,
                "results": [
                    {
                        "task": {"type": "audio-classification"},
                        "dataset": {
                            "name": f"{facts.corpus_name}, {facts.fold}, test speakers",
                            "type": facts.corpus.adapter,
                        },
                        "metrics": [
                            {"type": "accuracy", "name": "WAR", "value": scores.war},
                            {"type": "recall", "name": "UAR", "value": scores.uar},
                        ],
                    }
                ],
            }
        ]
    lines = [f"{name}: {json.dumps(value)}" for name, value in header.items()]
    return "\n".join(["---", *lines, "---"])


def _use(facts: CardFacts) -> str:
    if facts.stage == "finetune":
        return (
            "## Use\n\n"
            "```python\n"
            "import soundfile\n"
            "import soxr\n"
            "from transformers import pipeline\n\n"
            'classify = pipeline("audio-classification", model=FOLDER, trust_remote_code=True)\n'
            f"{READ_SAMPLES}"
            'print(classify({"raw": wave, "sampling_rate": 16000}, top_k=None))\n'
            "```\n\n"
            "The pipeline itself resamples only with torchaudio. soxr does it here. "
            f"Classes: {', '.join(facts.emotions)}. `trust_remote_code` runs `modeling_gmp_atl.py` from "
            "this folder. That file imports torch and transformers only; read it first. Logits are "
            f"{LOGITS[facts.loss]}. Batches may be padded "
            "if the model gets the attention mask that the feature extractor returns."
        )
    exact = (
        "Batches may be padded if the model gets the attention mask that the feature extractor returns."
        if facts.pads_exactly
        else "The first convolution normalises over time. The HubertModel of transformers includes the "
        "padding in that, so give clips one at a time, or clips of the same length."
    )
    return (
        "## Use\n\n"
        "```python\n"
        "from transformers import AutoFeatureExtractor, HubertModel\n\n"
        "extractor = AutoFeatureExtractor.from_pretrained(FOLDER)\n"
        "model = HubertModel.from_pretrained(FOLDER)\n"
        'inputs = extractor(wave, sampling_rate=16000, return_tensors="pt")\n'
        "frames = model(**inputs).last_hidden_state  # 50 per second\n"
        "```\n\n" + exact
    )


def _data(facts: CardFacts) -> str:
    corpus = facts.corpus
    classes = ", ".join(f"{name} {count}" for name, count in corpus.per_class.items())
    genders = ", ".join(f"{name} {count}" for name, count in corpus.per_gender.items())
    return (
        "## Data\n\n"
        f"Corpus {facts.corpus_name} (adapter `{corpus.adapter}`): "
        f"{counted(corpus.num_utterances, 'utterance')} of "
        f"{counted(corpus.num_speakers, 'speaker')}, {corpus.hours:.3g} h in total ({classes}; {genders}). "
        f"Left out as unusable: {counted(len(corpus.dropped), 'recording')}. The training set of the stage "
        f"that made this model has {facts.training_set.describe()}.\n\n"
        f"{_sources(corpus)}"
        "**The licence of the corpus is not known to the software that wrote this card.** Neither is the "
        "licence of the base model. Both may restrict the use and the sharing of this model. Check them "
        "before you share it."
    )


def _sources(corpus: CorpusContent) -> str:
    """A line for each of several corpora."""
    if not corpus.sources:
        return ""
    lines = [
        f"- {s.name} ({s.role}): {counted(s.num_utterances, 'utterance')}, {s.hours:.3g} h; language "
        f"{_line(s.language) or 'not stated'}; licence, as the configuration states it: "
        f"{_line(s.licence) or 'not stated'}"
        for s in corpus.sources
    ]
    heading = "The figures above are of the labelled sources together. The sources:"
    return "\n".join([heading, "", *lines, "", ""])


def _line(text: str) -> str:
    return " ".join(text.split())


def _protocol(facts: CardFacts) -> str:
    protocol = facts.protocol
    warning = "" if protocol.warning is None else f"\n\n> **Warning.** {protocol.warning}"
    return (
        f"## Protocol\n\nProtocol `{protocol.name}`, `{facts.fold}`: the test set has "
        f"{facts.test_set.describe()}. {protocol.statement}{warning}"
    )


def _results(facts: CardFacts) -> str:
    if facts.outcome is None:
        reason = (
            "The warmed-up model is not evaluated by itself."
            if facts.stage == "warmup"
            else "The fold was not evaluated when this card was written."
        )
        return f"## Results\n\n{reason}"
    subject = (
        ""
        if facts.stage == "finetune"
        else "The scores are those of the classifier that was fine-tuned from this backbone, not of the "
        "backbone itself.\n\n"
    )
    scores = facts.outcome.scores
    rows: list[str] = []
    # Intervals over speakers exist only if there are enough speakers to resample.
    for unit, intervals in (
        ("utterances", facts.outcome.intervals),
        ("speakers", facts.outcome.speaker_intervals),
    ):
        if intervals is not None:
            confidence = f"{100 * intervals.confidence:g} % over {unit}"
            rows.append(_score_row("WAR (accuracy)", scores.war, intervals.war, confidence))
            rows.append(_score_row("UAR (mean recall)", scores.uar, intervals.uar, confidence))
    return (
        f"## Results\n\n{subject}On the {scores.num_utterances} test utterances of "
        f"{counted(facts.test_set.num_speakers, 'speaker')} of `{facts.fold}`, which is one fold only:\n\n"
        "| metric | value | interval | confidence |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n\nIntervals are bootstrapped. An interval over utterances does not cover the difference to "
        "other speakers, which is usually larger."
    )


def _score_row(name: str, value: float, interval: tuple[float, float], confidence: str) -> str:
    low, high = interval
    return (
        f"| {name} | {100 * value:.1f} % | {100 * low:.1f} to {100 * high:.1f} % | {confidence} |"
    )


def _channels(channel: Channel) -> list[str]:
    if channel == DEFAULT_CHANNEL:
        return []
    which = {"first": "the first channel", "loudest": "the channel with the most energy"}[channel]
    return [
        f"It was trained on {which} of recordings with several channels. `gmp-atl predict` and `gmp-atl "
        f"serve` take the same one; the code above and other libraries take the mean."
    ]


def _limits(facts: CardFacts) -> str:
    limits = [
        f"Input is 16 kHz mono. A clip needs at least {1000 * MIN_SAMPLES / SAMPLE_RATE_HZ:.0f} ms.",
        *_channels(facts.channel),
    ]
    if facts.stage != "backbone":
        limits.append(
            f"It was trained on utterances with a median length of {facts.training_set.median_s:.1f} s; "
            f"the longest has {facts.training_set.longest_s:.1f} s. Each is of one speaker. {_crop(facts)}"
        )
        limits.append(
            "It was not tested on other languages, recording conditions or speakers than those of the "
            "corpus, nor for differences between groups of speakers."
        )
    if facts.stage == "finetune":
        limits.append(
            f"It answers with one of {len(facts.emotions)} classes for any input, also for noise. "
            f"Probabilities are not calibrated."
        )
        limits.append(
            "Labels are what annotators heard or actors were asked to show, not what a person felt. Do "
            "not use the model for decisions about people."
        )
    if facts.corpus.adapter == "synthetic" and facts.stage != "backbone":
        limits.append(
            "**The corpus is synthetic**: the model has learnt nothing about human speech."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in limits)


def _crop(facts: CardFacts) -> str:
    """The setting, and whether it mattered."""
    if facts.training_set.longest_s <= facts.max_utterance_s:
        return f"None was cropped: `max_utterance_s` is {facts.max_utterance_s:g} s."
    return f"Longer ones than `max_utterance_s` = {facts.max_utterance_s:g} s were cropped to that."


def _provenance(facts: CardFacts) -> str:
    rows = [f"| `{name}` | `{value}` |" for name, value in facts.identities.items()]
    used = ", ".join(f"{name} {number}" for name, number in facts.versions.items())
    run = f"Run `{facts.run_name}`. " if facts.run_name else ""
    return (
        "## Provenance\n\n"
        f"{run}Identities (sha256) of this model and of all its inputs. {_IDENTITY}\n\n"
        "| artefact | identity |\n|---|---|\n" + "\n".join(rows) + f"\n\nExported with {used}."
    )

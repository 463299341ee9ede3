"""The model card of an exported model: what it is, from what, how good, and what not to use it for.

The header is the hub's (https://huggingface.co/docs/hub/model-cards); its values are JSON, which is
YAML. A card is meant to be published, so it names no path, no host and no speaker.
"""

from __future__ import annotations

import json

from gmp_atl_dist.audio import MIN_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.exchange.card_facts import CardFacts

_STAGES = {
    "finetune": "a speech-emotion classifier: HuBERT that was retrained on multi-scale pseudo-labels, "
    "fine-tuned with attentive pooling and AM-Softmax",
    "retrain": "a HuBERT backbone that was retrained on gender-augmented multi-scale pseudo-labels",
    "warmup": "a HuBERT backbone that was warmed up on emotion and gender, whose features the "
    "pseudo-labels are made of",
    "backbone": "the stock HuBERT that a GMP-ATL run started from, unchanged",
}


def render_card(facts: CardFacts) -> str:
    """``README.md``: the same bytes for the same facts."""
    trained = facts.stage != "backbone"
    parts = [
        _header(facts),
        f"# {facts.title}\n\nThis is {_STAGES[facts.stage]}. It was made by gmp_atl_dist, an "
        f"independent implementation of GMP-ATL (Pan et al., "
        f"[arXiv 2405.02151](https://arxiv.org/abs/2405.02151)). {facts.base_words}",
        _use(facts),
        *([_data(facts), _protocol(facts), _results(facts)] if trained else []),
        _limits(facts),
        _provenance(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _header(facts: CardFacts) -> str:
    classifier = facts.stage == "finetune"
    header: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "audio-classification" if classifier else "feature-extraction",
        # The hub's word for one that nobody stated.
        "license": "unknown",
        "tags": ["speech-emotion-recognition", "hubert", "gmp-atl"],
    }
    if facts.base_model is not None:
        header["base_model"] = facts.base_model
    if classifier:
        header["metrics"] = ["accuracy", "recall"]
    if classifier and facts.outcome is not None and facts.protocol.warning is None:
        # Tables of the hub compare what stands here, so only the clean arm does.
        scores = facts.outcome.scores
        header["model-index"] = [
            {
                "name": facts.title,
                "results": [
                    {
                        "task": {"type": "audio-classification"},
                        "dataset": {
                            "name": f"{facts.corpus.adapter}, {facts.fold}, test speakers",
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
            "from transformers import pipeline\n\n"
            'classify = pipeline("audio-classification", model=FOLDER, trust_remote_code=True)\n'
            'classify({"raw": wave, "sampling_rate": 16000})  # float32, mono, in [-1, 1)\n'
            "```\n\n"
            f"Classes: {', '.join(facts.emotions)}. `trust_remote_code` runs `modeling_gmp_atl.py` of "
            "this folder, which imports torch and transformers alone; read it first. Logits are "
            "cosines times `am_scale`, without the margin of the training loss. Batches may be padded, "
            "given the attention mask that the feature extractor returns."
        )
    exact = (
        "Batches may be padded, given the attention mask that the feature extractor returns."
        if facts.pads_exactly
        else "Its first convolution normalises over time, in transformers' HubertModel over the padding "
        "as well: give clips one at a time, or of the same length."
    )
    return (
        "## Use\n\n"
        "```python\n"
        "from transformers import AutoFeatureExtractor, HubertModel\n\n"
        "extractor = AutoFeatureExtractor.from_pretrained(FOLDER)\n"
        "model = HubertModel.from_pretrained(FOLDER)\n"
        'inputs = extractor(wave, sampling_rate=16000, return_tensors="pt")\n'
        "frames = model(**inputs).last_hidden_state  # 50 a second\n"
        "```\n\n" + exact
    )


def _data(facts: CardFacts) -> str:
    corpus = facts.corpus
    classes = ", ".join(f"{name} {count}" for name, count in corpus.per_class.items())
    genders = ", ".join(f"{name} {count}" for name, count in corpus.per_gender.items())
    return (
        "## Data\n\n"
        f"Corpus adapter `{corpus.adapter}`: {corpus.num_utterances} utterances of "
        f"{corpus.num_speakers} speakers, {corpus.hours:.3g} h in all ({classes}; {genders}); "
        f"{len(corpus.dropped)} recordings were left out as unusable. Of these, the stage that made this "
        f"model learnt from {facts.heard.words()}.\n\n"
        "**The licence of the corpus is not known to the software that wrote this card**, and neither is "
        "that of the base model. Both may restrict what this model may be used for and whether it may be "
        "shared: find out before you share it."
    )


def _protocol(facts: CardFacts) -> str:
    protocol = facts.protocol
    warning = "" if protocol.warning is None else f"\n\n> **Warning.** {protocol.warning}"
    return (
        f"## Protocol\n\nProtocol `{protocol.name}`, `{facts.fold}`: {facts.tested.words()} are held out "
        f"for the test. {protocol.statement}{warning}"
    )


def _results(facts: CardFacts) -> str:
    if facts.outcome is None:
        reason = (
            "The warmed-up model is not evaluated by itself."
            if facts.stage == "warmup"
            else "The fold was not evaluated when this card was written."
        )
        return f"## Results\n\n{reason}"
    whose = (
        ""
        if facts.stage == "finetune"
        else "Of the classifier that was fine-tuned from this backbone, not of the backbone itself.\n\n"
    )
    scores = facts.outcome.scores
    rows: list[str] = []
    # Over speakers only where there are enough of them to resample.
    for unit, found in (
        ("utterances", facts.outcome.intervals),
        ("speakers", facts.outcome.speaker_intervals),
    ):
        if found is not None:
            confidence = f"{100 * found.confidence:g} % over {unit}"
            rows.append(_score_row("WAR (accuracy)", scores.war, found.war, confidence))
            rows.append(_score_row("UAR (mean recall)", scores.uar, found.uar, confidence))
    return (
        f"## Results\n\n{whose}On the {scores.num_utterances} test utterances of {facts.tested.num_speakers} "
        f"speakers of `{facts.fold}`, one fold alone:\n\n"
        "| measure | value | interval | of |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n\nIntervals are bootstrapped. Over utterances they do not tell how far other speakers would "
        "differ, which is usually further."
    )


def _score_row(name: str, value: float, interval: tuple[float, float], of: str) -> str:
    low, high = interval
    return f"| {name} | {100 * value:.1f} % | {100 * low:.1f} to {100 * high:.1f} % | {of} |"


def _limits(facts: CardFacts) -> str:
    limits = [
        f"16 kHz mono; no clip below {1000 * MIN_SAMPLES / SAMPLE_RATE_HZ:.0f} ms.",
    ]
    if facts.stage != "backbone":
        limits.append(
            f"Trained on utterances of at most {facts.max_utterance_s:g} s (longer ones were cropped), "
            f"each of one speaker."
        )
        limits.append(
            "Languages, recording conditions and speakers other than the corpus's were not looked at, "
            "nor were differences between groups of speakers."
        )
    if facts.stage == "finetune":
        limits.append(
            f"It answers with one of {len(facts.emotions)} classes whatever it hears, also noise. "
            f"Probabilities are not calibrated."
        )
        limits.append(
            "Labels are what annotators heard or actors were asked for, not what anybody felt. Not for "
            "decisions about people."
        )
    if facts.corpus.adapter == "synthetic" and facts.stage != "backbone":
        limits.append("**The corpus is synthetic**: the model knows nothing about human speech.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in limits)


def _provenance(facts: CardFacts) -> str:
    made = [f"| `{name}` | `{value}` |" for name, value in facts.fingerprints.items()]
    used = ", ".join(f"{name} {number}" for name, number in facts.versions.items())
    return (
        "## Provenance\n\n"
        "sha256 fingerprints of what this model was made from, and of itself:\n\n"
        "| artefact | fingerprint |\n|---|---|\n" + "\n".join(made) + f"\n\nExported with {used}."
    )

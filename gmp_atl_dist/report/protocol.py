"""States in plain words which stages used data of the test speakers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

ProtocolName = Literal["clean", "transductive", "peek", "speaker_dependent"]
SelectionRule = Literal["last", "valid", "test"]
UnlabelledUse = Literal["pseudo_labels", "pretrain"]

FITTED = ("warm-up", "clustering", "retraining", "fine-tuning")
"""What the whole method fits, beside pretraining, in order."""
_ON_AUDIO = ("clustering", "retraining")
"""Which of them need no emotion labels."""
_CLEAN = "No fitted stage used data of the test speakers: {all} used only the training speakers of each fold."
_TRANSDUCTIVE_AUDIO = (
    "{on_audio} used the audio of the test speakers, without their emotion labels. "
)
_TRANSDUCTIVE_LABELS = "{on_labels} used only the training speakers of each fold."
_SPEAKER_DEPENDENT = (
    "The split has the same speakers in training and test. Every fitted stage used the training utterances "
    "of each fold alone, and none used the audio or labels of a test utterance."
)
_PRETRAINED: dict[ProtocolName, str] = {
    "clean": "The same holds for the pretraining from which they start.",
    "transductive": "The pretraining from which they start also used the audio of the test speakers.",
    "peek": "The pretraining from which they start also used the audio of the test speakers.",
    "speaker_dependent": "The same holds for the pretraining from which they start.",
}
_NOT_TESTED = (
    "No fold tests on it, and no recording of it is in a labelled source. Whether a test speaker also speaks "
    "there, in other recordings, is not known."
)
_UNLABELLED: dict[UnlabelledUse, str] = {
    "pseudo_labels": "Clustering and retraining, and pretraining if there was one, also used speech without "
    f"emotion labels. {_NOT_TESTED}",
    "pretrain": f"Pretraining also used speech without emotion labels, and no other stage did. {_NOT_TESTED}",
}
_SELECTED: dict[SelectionRule, str] = {
    "last": "No epoch was selected: the last one is reported.",
    "valid": "The epoch was selected on validation speakers, who are in neither the training set nor "
    "the test set.",
    "test": "The epoch was selected on the test speakers themselves.",
}
_SELECTED_WITHIN = (
    "The epoch was selected on validation utterances. Speakers of the validation set may be in training and "
    "in test too."
)
_TEST_AUDIO_USED = (
    "This result is not free of leakage: training used unlabelled test audio. Compare it with other "
    "transductive results only."
)
_SELECTED_ON_TEST = (
    "Not a valid estimate of performance: the epoch was selected on the test speakers. That alone is "
    "known to add 2.7 to 4.7 points of accuracy (emotion2vec, table 2). This run only measures the "
    "size of that error."
)


_SAME_SPEAKERS = (
    "Not a valid estimate for unknown speakers: speakers of the test set are in the training set, so the "
    "model was tested on voices that it had learnt. Compare this result only with others on the same split."
)
_USAGE: dict[ProtocolName, str] = {
    "clean": _CLEAN,
    "transductive": _TRANSDUCTIVE_LABELS,
    "peek": _TRANSDUCTIVE_LABELS,
    "speaker_dependent": _SPEAKER_DEPENDENT,
}
_WARNINGS: dict[ProtocolName, str | None] = {
    "clean": None,
    "transductive": _TEST_AUDIO_USED,
    "peek": _SELECTED_ON_TEST,
    "speaker_dependent": _SAME_SPEAKERS,
}


class Content(BaseModel):
    """A frozen model that refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Protocol(Content):
    """The protocol of a run. ``warning`` is None for ``clean`` only."""

    name: ProtocolName
    statement: str
    warning: str | None

    @model_validator(mode="after")
    def _warns(self) -> Self:
        if (self.name == "clean") == bool(self.warning):
            raise ValueError(
                f"protocol {self.name!r} with warning {self.warning!r}: all protocols except clean "
                f"need a warning"
            )
        return self

    @classmethod
    def of(
        cls,
        name: ProtocolName,
        selection: SelectionRule,
        *,
        fitted: Sequence[str] = FITTED,
        pretrained: bool = False,
        unlabelled: UnlabelledUse | None = None,
        start: str = "",
        codebooks: Sequence[str] = (),
    ) -> Protocol:
        """The protocol in plain words.

        Args:
            name: the protocol.
            selection: how the epoch was selected.
            fitted: those of :data:`FITTED` that this run fits.
            pretrained: whether this run pretrained the model from random weights.
            unlabelled: what speech of unlabelled sources was used for; None: there was none.
            start: what is known of the start model, in a sentence.
            codebooks: where codebooks come from that this run did not fit, a sentence each.

        Raises:
            ValueError: the epoch was selected on test speakers and the protocol is not ``peek``, or
                the reverse.
        """
        if (name == "peek") != (selection == "test"):
            raise ValueError(
                f"protocol {name!r} with an epoch selected by {selection!r}: 'peek' and 'test' go "
                f"together"
            )
        usage = _usage(name, fitted)
        if pretrained:
            usage = f"{usage} {_PRETRAINED[name]}"
        if unlabelled:
            usage = f"{usage} {_UNLABELLED[unlabelled]}"
        within = name == "speaker_dependent" and selection == "valid"
        selected = _SELECTED_WITHIN if within else _SELECTED[selection]
        statement = " ".join(filter(None, [usage, selected, start, *codebooks]))
        return cls(name=name, statement=statement, warning=_WARNINGS[name])


def _usage(name: ProtocolName, fitted: Sequence[str]) -> str:
    """Which of the fitted stages used data of the test speakers."""
    on_audio = [stage for stage in fitted if stage in _ON_AUDIO]
    on_labels = [stage for stage in fitted if stage not in _ON_AUDIO]
    text = _USAGE[name]
    if text == _TRANSDUCTIVE_LABELS and on_audio:
        text = f"{_TRANSDUCTIVE_AUDIO}{text}"
    return text.format(
        all=_and(fitted),
        on_audio=_and(on_audio).capitalize(),
        on_labels=_and(on_labels).capitalize(),
    )


def _and(words: Sequence[str]) -> str:
    *before, last = words or ("",)
    return f"{', '.join(before)} and {last}" if before else last

"""What the test speakers were kept from, in words that a reader of the report cannot miss."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

ProtocolName = Literal["clean", "transductive", "peek"]
SelectionRule = Literal["last", "valid", "test"]

_CLEAN = (
    "The test speakers were unseen by every fitted stage: warm-up, clustering, retraining and "
    "fine-tuning learnt from the training speakers of each fold alone."
)
_TRANSDUCTIVE = (
    "Clustering and retraining saw the audio of the test speakers, without their emotion labels. "
    "Warm-up and fine-tuning learnt from the training speakers of each fold alone."
)
_PRETRAINED: dict[ProtocolName, str] = {
    "clean": "So did the pretraining that they start from.",
    "transductive": "The pretraining that they start from heard the test speakers as well.",
    "peek": "The pretraining that they start from heard the test speakers as well.",
}
_CHOSEN: dict[SelectionRule, str] = {
    "last": "No epoch was chosen: the last one is reported.",
    "valid": "The epoch was chosen on validation speakers, who are neither trained nor tested on.",
    "test": "The epoch was chosen on the test speakers themselves.",
}
_AUDIO_SEEN = (
    "Not a leakage-free result: unlabelled test audio was seen in training. Compare it with other "
    "transductive results only."
)
_CHOSEN_ON_TEST = (
    "Not a valid estimate of performance: the epoch was chosen on the test speakers. That alone is "
    "known to add 2.7 to 4.7 points of accuracy (emotion2vec, table 2). This run measures the size "
    "of that error, nothing else."
)


class Content(BaseModel):
    """Unknown keys, NaN and infinity are refused; nothing changes once it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Protocol(Content):
    """The arm that was run. ``warning`` is None for ``clean`` alone."""

    name: ProtocolName
    statement: str
    warning: str | None

    @model_validator(mode="after")
    def _warns(self) -> Self:
        if (self.name == "clean") == bool(self.warning):
            raise ValueError(
                f"protocol {self.name!r} with warning {self.warning!r}: all but clean need one"
            )
        return self

    @classmethod
    def of(
        cls, name: ProtocolName, selection: SelectionRule, *, pretrained: bool = False
    ) -> Protocol:
        """The protocol in plain words; ``selection`` says how the epoch was chosen.

        ``pretrained``: the model was, from random weights, in this run.

        Raises:
            ValueError: an epoch chosen on test speakers is not called ``peek``, or the reverse.
        """
        if (name == "peek") != (selection == "test"):
            raise ValueError(
                f"protocol {name!r} with an epoch selected by {selection!r}: 'peek' and 'test' go "
                f"together"
            )
        seen = _CLEAN if name == "clean" else _TRANSDUCTIVE
        if pretrained:
            seen = f"{seen} {_PRETRAINED[name]}"
        warnings = {"clean": None, "transductive": _AUDIO_SEEN, "peek": _CHOSEN_ON_TEST}
        return cls(name=name, statement=f"{seen} {_CHOSEN[selection]}", warning=warnings[name])

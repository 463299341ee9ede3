"""Who is held out, and who validates."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gmp_atl_dist.config.hashing import Added
from gmp_atl_dist.config.sections import Name, PositiveInt, Section


class FoldsConfig(Section):
    """Who is held out. One fold per held-out group; ``run`` picks some of them."""

    by: Literal["session", "speaker", "split", "corpus"] = Field(
        default="session",
        description="what is held out: sessions, speakers, the split of the table, or one of "
        "[[corpora]]",
    )
    held_out: tuple[tuple[Name, ...], ...] = Field(
        default=(),
        description="groups of sessions, speakers or corpora; empty leaves one out at a time",
    )
    valid: Literal["none", "next", "share", "other_speaker"] = Field(
        default="none",
        description="who is set aside for model selection. next: the next fold's held-out group; of a "
        "split or of lists, their own valid side. share: some of the training speakers. "
        "other_speaker: the others in the sessions of the test speakers, with by = 'speaker'",
    )
    valid_share: Annotated[float, Field(gt=0, lt=1), Added("0.4.0", left_out_at=0.1)] = Field(
        default=0.1, description="share of the training speakers that valid = 'share' sets aside"
    )
    k: Annotated[Annotated[int, Field(ge=2)] | None, Added("0.4.0", left_out_at=None)] = Field(
        default=None,
        description="number of folds. Speakers (with by = 'session' sessions) are dealt into k groups "
        "that are alike in gender and emotion; unset: one fold per session or speaker",
    )
    seed: Annotated[int, Added("0.4.0", left_out_at=0)] = Field(
        default=0, description="random seed of k and of valid = 'share'"
    )
    lists: Annotated[str, Added("0.4.0", left_out_at="")] = Field(
        default="",
        description="lists that say who trains and who is tested, in place of groups: a folder, file or "
        "pattern, relative to the corpus, or an absolute path or URI. EmoBox, s3prl, CSV",
    )
    unlisted: Annotated[Literal["refuse", "leave_out"], Added("0.4.0", left_out_at="refuse")] = (
        Field(
            default="refuse",
            description="what is done with utterances that only the corpus or only the lists name: "
            "refuse the lists, or leave those utterances out and name them",
        )
    )
    run: tuple[PositiveInt, ...] = Field(
        default=(), description="numbers of the folds to run, from 1; empty runs all"
    )
    protocol: Literal["clean", "transductive", "peek", "speaker_dependent"] = Field(
        default="clean",
        description="clean: no fitted stage uses the test speakers. transductive: pretraining, "
        "clustering and retraining use their audio. peek: the epoch is chosen on them as "
        "well. speaker_dependent: lists or a split may have the same speaker in training and test",
    )

    @model_validator(mode="before")
    @classmethod
    def _k_deals_speakers(cls, raw: object) -> object:
        """The default of ``by`` is sessions, and many corpora have none."""
        if isinstance(raw, dict) and raw.get("k") is not None and "by" not in raw:
            return {**raw, "by": "speaker"}
        return raw

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = {"held_out": bool(self.held_out), "k": self.k is not None}
        ways |= {"lists": bool(self.lists), "by = 'split'": self.by == "split"}
        chosen = [name for name, is_set in ways.items() if is_set]
        # folds.held_out with by = 'split' has a message of its own where folds are planned.
        if len(chosen) > 1 and set(chosen) != {"held_out", "by = 'split'"}:
            raise ValueError(f"{' and '.join(chosen)} exclude each other; keep one of them")
        if self.protocol == "speaker_dependent" and not {"lists", "by = 'split'"} & {*chosen}:
            raise ValueError(
                "protocol: 'speaker_dependent' runs lists or a split that share speakers; set lists, or "
                "by = 'split'"
            )
        if self.valid == "other_speaker" and (self.by != "speaker" or self.lists):
            raise ValueError(
                "valid: 'other_speaker' needs by = 'speaker': one speaker of a session is tested, the "
                "others validate"
            )
        if self.valid == "share" and self.protocol == "speaker_dependent":
            raise ValueError(
                "valid: 'share' sets speakers aside, and protocol = 'speaker_dependent' does not keep "
                "speakers apart; use 'none' or 'next'"
            )
        return self

    @property
    def trains_on_test_audio(self) -> bool:
        """Whether pretraining, clustering and retraining use the audio of the test speakers."""
        return self.protocol in ("transductive", "peek")

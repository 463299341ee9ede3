"""Which recordings are used, with which labels, and what the audit of their audio names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gmp_atl_dist.config.hashing import Added
from gmp_atl_dist.config.sections import Fraction, Location, OptionValue, PositiveFloat, Section

MAX_UTTERANCE_S = 60.0


class CorpusConfig(Section):
    """Which utterances, with which labels. Where they lie is ``runtime.corpus``."""

    adapter: str = Field(
        default="iemocap",
        description="who reads the labels: a name that gmp-atl corpora list prints",
    )
    options: Annotated[dict[str, OptionValue], Added("0.4.0", left_out_at={})] = Field(
        default_factory=dict, description="options of the adapter; it checks them"
    )
    emotions: tuple[str, ...] = Field(
        default=(), description="classes in this order; empty: the adapter's own set"
    )
    merge: dict[str, str] = Field(
        default_factory=dict, description="emotions that are renamed, e.g. excited = 'happy'"
    )
    ignore_other_emotions: bool = Field(
        default=False, description="leave out utterances of emotions outside the class list"
    )
    table: Location = Field(
        default="manifest.csv",
        description="table adapter: CSV, TSV or Parquet file; relative to the corpus, or an absolute "
        "path or URI",
    )
    delimiter: Annotated[
        Literal["auto", "comma", "semicolon", "tab"], Added("0.3.0", left_out_at="auto")
    ] = Field(
        default="auto",
        description="table adapter: what separates the columns of a text table; auto: what the "
        "header shows",
    )
    audio_root: Annotated[str, Added("0.3.0", left_out_at="")] = Field(
        default="",
        description="folder or URI in which the corpus lay when the table was written. Absolute "
        "paths below it mean the same files below runtime.corpus",
    )
    channel: Annotated[Literal["mean", "first", "loudest"], Added("0.3.0", left_out_at="mean")] = (
        Field(
            default="mean",
            description="what is used of recordings with several channels: their mean, the first one, "
            "or the one with the most energy",
        )
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="table adapter: our column = theirs, e.g. id = 'utt_id'"
    )
    max_bad_fraction: Fraction = Field(
        default=0.01,
        description="largest share of bad items. Below it they are left out and listed in the "
        "report; "
        "above it the run stops. 0: the first bad item stops the run",
    )
    allow_incomplete: Annotated[bool, Added("0.4.0", left_out_at=False)] = Field(
        default=False,
        description="accept a corpus that lacks a part of its release, such as sessions of IEMOCAP",
    )
    min_s: PositiveFloat = Field(
        default=0.1, description="seconds; a shorter utterance is a bad item"
    )
    max_s: PositiveFloat = Field(
        default=MAX_UTTERANCE_S, description="seconds; a longer utterance is a bad item"
    )
    part_audio_s: PositiveFloat = Field(
        default=600.0, description="seconds of audio in one part of the store"
    )


class AuditConfig(Section):
    """Limits of the audio audit. It names utterances beyond them, and leaves none of them out."""

    quiet_dbfs: Annotated[float, Field(lt=0)] = Field(
        default=-50.0, description="an utterance with a lower level is quiet; dB of full scale"
    )
    level_spread_db: PositiveFloat = Field(
        default=25.0,
        description="an utterance whose level is further from the median of the corpus is named",
    )
    clipped_share: Fraction = Field(
        default=0.01,
        description="an utterance with a larger share of samples at full scale is clipped",
    )
    zero_share: Fraction = Field(
        default=0.5,
        description="an utterance with a larger share of samples that are exactly 0 is partly silent",
    )
    dc_share: Fraction = Field(
        default=0.02,
        description="an utterance whose mean sample is a larger share of full scale has an offset",
    )
    narrow_hz: PositiveFloat = Field(
        default=4200.0,
        description="an utterance without sound above this frequency has a narrow band; audio of 8 kHz "
        "has none above 4,000",
    )

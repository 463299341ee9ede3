"""Several corpora in one run: ``[[corpora]]``, one section per source.

Conflicts between the sources are found here, before anything is read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gmp_atl_dist.config.corpus import CorpusConfig
from gmp_atl_dist.config.hashing import Added
from gmp_atl_dist.config.sections import PositiveFloat

NOBODY = "nobody"
"""``speakers_of`` of a source whose speakers are in no other one, although names are alike."""
AUDIO_FILES = "unlabelled"
"""The adapter of an unlabelled source that takes every audio file below its folder."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


class SourceConfig(CorpusConfig):
    """One of several corpora. Its keys are those of ``[corpus]``, and these."""

    name: str = Field(
        description="letters, digits, '_' and '-'; begins the ids and speakers of its utterances, and "
        "names its place in runtime.corpora"
    )
    role: Literal["labelled", "unlabelled"] = Field(
        default="labelled",
        description="unlabelled: its speech is used by pretrain, extract, cluster, label and retrain, "
        "and by nothing else; emotions that it tells are not read",
    )
    use: Annotated[Literal["pseudo_labels", "pretrain"], Added("0.5.0", "pseudo_labels")] = Field(
        default="pseudo_labels",
        description="unlabelled sources: which stages use them. pseudo_labels: all that the role names; "
        "pretrain: pretrain alone, so that codebooks and retraining are of the other sources",
    )
    weight: PositiveFloat = Field(
        default=1.0,
        description="how often its audio is drawn in training, relative to other sources; 1: as often as it "
        "occurs",
    )
    speakers_of: str = Field(
        default="",
        description="unlabelled sources that tell speakers: the labelled source in which the same names "
        "are the same people, or 'nobody'. In each fold, speech of people who are tested or validated "
        "on is left out",
    )
    vad: bool = Field(
        default=False,
        description="unlabelled sources: cut recordings longer than max_s into utterances by their "
        "energy. Ids get the limits in seconds",
    )
    vad_max_s: PositiveFloat = Field(
        default=20.0, description="vad: longest utterance, in seconds; at most max_s"
    )
    vad_db: PositiveFloat = Field(
        default=30.0,
        description="vad: a frame this far below the loud frames of its recording is a pause",
    )
    language: str = Field(default="", description="for the report and the model card")
    licence: str = Field(default="", description="for the report and the model card")

    @model_validator(mode="before")
    @classmethod
    def _adapter_of_role(cls, raw: object) -> object:
        if isinstance(raw, dict) and raw.get("role") == "unlabelled" and "adapter" not in raw:
            return {**raw, "adapter": AUDIO_FILES}
        return raw

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name of a source; use up to 40 letters, digits, '_' and '-'"
            )
        return name

    @property
    def is_labelled(self) -> bool:
        return self.role == "labelled"

    @property
    def is_adapted_to(self) -> bool:
        """Whether its speech is clustered and retrained on."""
        return self.use == "pseudo_labels"

    def corpus(self, emotions: Sequence[str]) -> CorpusConfig:
        """What its ``ingest`` reads, with the class list of all sources.

        Name, role, weight, language and licence are left out: they change nothing that is read.
        """
        own = {name: getattr(self, name) for name in CorpusConfig.model_fields}
        return CorpusConfig.model_validate(
            own | {"emotions": tuple(emotions) if self.is_labelled else ()}
        )


def problems_of_sources(
    common: CorpusConfig, sources: Sequence[SourceConfig], places: Mapping[str, str]
) -> list[str]:
    """What is wrong with several sources together; each line begins with a key.

    Args:
        common: ``[corpus]``, which keeps the class list of all sources.
        places: ``runtime.corpora``.
    """
    if not sources:
        return [
            f"runtime.corpora.{name}: there is no [[corpora]] of that name"
            for name in sorted(places)
        ]
    problems: list[str] = []
    if not common.emotions:
        problems.append(
            "corpus.emotions: is needed with [[corpora]]; list the classes that all sources share"
        )
    alone = CorpusConfig(emotions=common.emotions)
    problems += [
        f"corpus.{key}: is not used with [[corpora]]; set it in the source that it is meant for"
        for key in CorpusConfig.model_fields
        if getattr(common, key) != getattr(alone, key)
    ]
    names = [source.name for source in sources]
    for i, name in enumerate(names):
        # Names begin ids and folders, and some file systems do not distinguish case.
        earlier = [other for other in names[:i] if other.casefold() == name.casefold()]
        if earlier:
            problems.append(
                f"corpora[{i}].name: {name!r} is the name of an earlier source ({earlier[0]!r}); "
                f"rename one of them"
            )
        if name not in places:
            problems.append(f"runtime.corpora.{name}: is needed; give its folder or URI")
    problems += [
        f"runtime.corpora.{name}: there is no [[corpora]] of that name; known are {', '.join(names)}"
        for name in sorted(set(places) - set(names))
    ]
    labelled = [(i, source) for i, source in enumerate(sources) if source.is_labelled]
    if not labelled:
        problems.append("corpora: none has role = 'labelled'; at least one source needs labels")
    problems += [
        f"corpora[{i}].adapter: {AUDIO_FILES!r} reads no emotion; set role = 'unlabelled', or another "
        f"adapter"
        for i, source in labelled
        if source.adapter == AUDIO_FILES
    ]
    for i, source in enumerate(sources):
        if source.emotions:
            problems.append(
                f"corpora[{i}].emotions: the class list of all sources is corpus.emotions; remove this "
                f"key, and set ignore_other_emotions = true to leave out the other emotions of "
                f"{source.name}"
            )
    known = [source.name for _, source in labelled]
    problems += [
        f"corpora[{i}].speakers_of: {source.speakers_of!r} is no labelled source; give one of "
        f"{', '.join(known)}, or '{NOBODY}'"
        if not source.is_labelled
        else f"corpora[{i}].speakers_of: is for unlabelled sources; remove it"
        for i, source in enumerate(sources)
        if source.speakers_of and (source.is_labelled or source.speakers_of not in (*known, NOBODY))
    ]
    problems += [
        f"corpora[{i}].use: 'pretrain' is for unlabelled sources; remove it"
        for i, source in labelled
        if not source.is_adapted_to
    ]
    return problems + _problems_of_cuts(sources) + _conflicts_of_labels(common.emotions, labelled)


def _problems_of_cuts(sources: Sequence[SourceConfig]) -> list[str]:
    """Cuts of labelled speech, and cuts that would hide a test recording."""
    problems: list[str] = []
    longest = max((s.max_s for s in sources if s.is_labelled), default=0.0)
    for i, source in enumerate(sources):
        if not source.vad:
            continue
        if source.is_labelled:
            problems.append(
                f"corpora[{i}].vad: true cuts recordings, and a label is of a whole one; set it for "
                f"unlabelled sources alone"
            )
        elif source.max_s < longest:
            problems.append(
                f"corpora[{i}].max_s: {source.max_s:g} with vad = true: a labelled recording of up to "
                f"{longest:g} s could be cut here, and then not be recognised; set it to {longest:g} or "
                f"more, and vad_max_s to the length that utterances are to have"
            )
        if source.vad_max_s > source.max_s or source.vad_max_s < 1:
            problems.append(
                f"corpora[{i}].vad_max_s: {source.vad_max_s:g} is not between 1 and max_s = "
                f"{source.max_s:g}"
            )
    return problems


def _conflicts_of_labels(
    emotions: Sequence[str], labelled: Sequence[tuple[int, SourceConfig]]
) -> list[str]:
    """Labels that become no class, or another class in another source."""
    classes = {_spelled(emotion): emotion for emotion in emotions}
    problems: list[str] = []
    meanings: dict[str, tuple[str, str]] = {}
    for i, source in labelled:
        own: dict[str, str] = {}
        for label, target in source.merge.items():
            key, meant = _spelled(label), _spelled(target)
            where = f"corpora[{i}].merge: {label!r}"
            if meant not in classes:
                problems.append(
                    f"{where} becomes {target!r}, which is not in corpus.emotions "
                    f"({', '.join(emotions)}); rename it to one of these, or add it there"
                )
                continue
            if own.setdefault(key, meant) != meant:
                problems.append(f"{where} becomes {target!r} and {own[key]!r}; give it one class")
            elif key in classes and key != meant:
                problems.append(
                    f"{where} becomes {target!r}, and it is itself in corpus.emotions; remove it from "
                    f"one of the two"
                )
            elif meanings.setdefault(key, (meant, source.name))[0] != meant:
                other, name = meanings[key]
                problems.append(
                    f"{where} becomes {target!r} in {source.name} and {other!r} in {name}; one label "
                    f"must mean one class in all sources"
                )
    return problems


def _spelled(emotion: str) -> str:
    """As ``corpora.checks.spelling`` has it; a configuration is checked without that package."""
    return unicodedata.normalize("NFC", emotion).strip().casefold()

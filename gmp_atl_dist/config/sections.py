"""What the sections of a configuration share: their base class, and types of values."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from gmp_atl_dist.config.hashing import Added, Json
from gmp_atl_dist.uris import uri_problem

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
OptionValue: TypeAlias = bool | int | float | str
"""An option of an adapter, a pooling or a loss, which says what it must be."""


def _well_spelt(text: str) -> str:
    if problem := uri_problem(text):
        raise ValueError(f"{text!r} {problem}")
    return text


Location = Annotated[str, AfterValidator(_well_spelt)]
"""A folder, file or URI. One that is empty or misspelt would mean a folder of that name."""


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


Name = Annotated[str, AfterValidator(_nfc)]
"""A name that is looked for in a corpus, whose names are in Unicode NFC."""

_HASHED = "gmp_atl_dist.hashed"


class Section(BaseModel):
    """Unknown keys are refused; values cannot be changed after they were checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _without_added_defaults(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        if not (info.context or {}).get(_HASHED):
            return values
        for name, field in type(self).model_fields.items():
            for added in (m for m in field.metadata if isinstance(m, Added)):
                if getattr(self, name) == added.left_out_at:
                    values.pop(name, None)
        return values


def hashed(
    section: Section, *, include: set[str] | None = None, exclude: set[str] | None = None
) -> dict[str, Json]:
    """The part of ``section`` that is hashed: all keys, or those of ``include`` without ``exclude``.

    Keys that were added later are left out at their declared value, in nested sections too.
    """
    return section.model_dump(
        mode="json", include=include, exclude=exclude, context={_HASHED: True}
    )

"""Query parameters that an endpoint does not have are refused: an ignored one would go unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from starlette.requests import Request

from gmp_atl_dist.serving.refusals import Refusal


def only(*known: str) -> Callable[[Request], None]:
    """A dependency that refuses parameters of other names."""

    def check(request: Request) -> None:
        unknown = [name for name in request.query_params if name not in known]
        if unknown:
            raise _unknown(unknown, known)

    return check


def _unknown(found: Sequence[str], known: Sequence[str]) -> Refusal:
    """``found``: names that are not among ``known``."""
    parts: list[str] = []
    for name in found:
        close = get_close_matches(name.lower(), known, n=1)
        parts.append(f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name))
    takes = f"it takes {', '.join(known)}" if known else "it takes none"
    return Refusal(
        400,
        "bad_parameter",
        f"this endpoint has no parameter {', '.join(parts)}; {takes}; /docs explains them",
    )

"""Errors of ours inside what Ray wraps around them."""

from __future__ import annotations

from gmp_atl_dist.errors import GmpAtlError


def unwrap_error(error: BaseException) -> GmpAtlError | None:
    """The error of ours inside what Ray wrapped around it."""
    queue: list[object] = [error]
    seen: set[int] = set()
    while queue:
        e = queue.pop(0)
        if not isinstance(e, BaseException) or id(e) in seen:
            continue
        seen.add(id(e))
        if isinstance(e, GmpAtlError):
            # Ray's wrapper may be a class made on the spot that inherits from ours.
            cause = getattr(e, "cause", e)
            return cause if isinstance(cause, GmpAtlError) else e
        queue += [getattr(e, "cause", None), e.__cause__, e.__context__]
        queue += list(getattr(e, "worker_failures", {}).values())
    return None


def short_message(error: BaseException) -> str:
    """An error that is not ours, in one line: what user code raised, or what Ray says of a death."""
    cause = getattr(error, "cause", None)
    if not isinstance(cause, BaseException):
        return f"{type(error).__name__}: {last_line(error)}"
    # Ray appends advice of its own to the message.
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0][:300]}"


def last_line(error: BaseException) -> str:
    """The end of what an error says, short enough for one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__

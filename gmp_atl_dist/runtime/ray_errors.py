"""The package's own errors, unwrapped from the errors that Ray wraps around them."""

from __future__ import annotations

from gmp_atl_dist.errors import GmpAtlError


def unwrap_error(error: BaseException) -> GmpAtlError | None:
    """The package's own error inside ``error``; None if there is none."""
    queue: list[object] = [error]
    seen: set[int] = set()
    while queue:
        e = queue.pop(0)
        if not isinstance(e, BaseException) or id(e) in seen:
            continue
        seen.add(id(e))
        if isinstance(e, GmpAtlError):
            # Ray may have made a wrapper class that inherits from our error's class.
            cause = getattr(e, "cause", e)
            return cause if isinstance(cause, GmpAtlError) else e
        queue += [getattr(e, "cause", None), e.__cause__, e.__context__]
        queue += list(getattr(e, "worker_failures", {}).values())
    return None


def short_message(error: BaseException) -> str:
    """A foreign error in one line: what user code raised, or how Ray describes a worker's death."""
    cause = getattr(error, "cause", None)
    if not isinstance(cause, BaseException):
        return f"{type(error).__name__}: {last_line(error)}"
    # Ray appends advice to the message.
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0][:300]}"


def last_line(error: BaseException) -> str:
    """The last line of an error's message, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__

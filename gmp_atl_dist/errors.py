"""Every error a user can cause, each one saying what was found and what to do.

All of them cross process borders (Ray pickles exceptions), so each is rebuilt from its
message alone, and each carries an exit code for the command line.
"""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN_PROBLEMS = 50


class GmpAtlError(Exception):
    """Base of every error that is the user's to mend; anything else is a defect of ours."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[type[GmpAtlError], tuple[str]]:
        return (type(self), (self.message,))

    @classmethod
    def of_all(cls, headline: str, problems: Sequence[str]) -> GmpAtlError:
        """One error for all bad items at once: ``headline`` and a line per problem."""
        shown = [f"  - {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
        if len(problems) > _SHOWN_PROBLEMS:
            shown.append(f"  ... and {len(problems) - _SHOWN_PROBLEMS} more")
        return cls("\n".join([headline, *shown]))


class ConfigError(GmpAtlError):
    """A configuration value is wrong; names the file and the key."""

    exit_code = 2


class CorpusError(GmpAtlError):
    """Recordings or their labels are wrong; names the utterance."""

    exit_code = 3


class ArtifactError(GmpAtlError):
    """Something in the store is missing, damaged, or not writable; names the object."""

    exit_code = 4


class CheckpointError(GmpAtlError):
    """A training checkpoint cannot be resumed from; names it and says how to go on."""

    exit_code = 5


class ModelError(GmpAtlError):
    """A model is not what the method needs; names the model and what it lacks."""

    exit_code = 6


class WorkerError(GmpAtlError):
    """Work on the cluster failed for good; names the parts left undone."""

    exit_code = 7


class PreflightError(GmpAtlError):
    """A run could not work where it was to start; the report before it says why."""

    exit_code = 8


class StoppedError(GmpAtlError):
    """The run was asked to stop, and did; what it had finished is kept.

    The exit code is 128 plus the number of the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
    """

    exit_code = 143

    def __init__(self, message: str, exit_code: int = exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[GmpAtlError], tuple[str, int]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (type(self), (self.message, self.exit_code))

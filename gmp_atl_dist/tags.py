"""What metrics and log lines are tagged with, so that several runs can be told apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tags:
    """The run, stage and fold that a metric or a line belongs to; empty where it belongs to none."""

    run: str = ""
    stage: str = ""
    fold: str = ""

    @property
    def label(self) -> str:
        """Stage and fold, as people see them."""
        return f"{self.stage} {self.fold}".rstrip()


NO_TAGS = Tags()

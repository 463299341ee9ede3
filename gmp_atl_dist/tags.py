"""What metrics and log lines are tagged with, so that those of several runs can be told apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tags:
    """Of which run, stage and fold something is; empty where it is of none."""

    run: str = ""
    stage: str = ""
    fold: str = ""

    @classmethod
    def of(cls, label: str, run: str) -> Tags:
        """``label`` is what a person calls a stage: its name, and the fold if it has one."""
        stage, fold = [*label.split(), "", ""][:2]
        return cls(run, stage, fold)

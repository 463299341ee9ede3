"""A small experiment on a synthetic corpus, for benchmarks that are given no configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gmp_atl_dist.corpora.synth import write_synthetic_corpus

CONFIG = Path(__file__).with_name("small_run.toml")


def small_run(folder: str, overrides: Sequence[str] = ()) -> list[str]:
    """Write the corpus below ``folder``; options for the command line and for ``load_config``.

    Returns:
        ``key=value`` settings: corpus and root below ``folder``, then ``overrides``.
    """
    write_synthetic_corpus(Path(folder) / "corpus", utterances_per_speaker_and_emotion=2)
    return [f"runtime.corpus={folder}/corpus", f"runtime.root={folder}/root", *overrides]

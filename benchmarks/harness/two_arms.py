"""Options and keys of benchmarks that run two arms of an experiment over several seeds."""

from __future__ import annotations

from argparse import ArgumentParser

from benchmarks.harness.command import positive


def add_options(parser: ArgumentParser, seeds_of: str) -> None:
    """The configuration, and how many seeds; ``seeds_of`` says of what."""
    parser.add_argument("--config", help="TOML file or shipped name; without it a small experiment")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the configuration"
    )
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help=seeds_of)


def keys_of(arm: str, what: str, other: str, other_what: str) -> dict[str, str]:
    """The keys of ``benchmarks.subjects.arms.Arms.compared``, and what they are."""
    return {
        f"uar_{arm}": f"UAR {what}; the spread is over seeds",
        f"uar_{other}": f"UAR {other_what}; the spread is over seeds",
        "uar_difference_low": "difference of the means, lower end over test utterances, 95 %",
        "uar_difference_high": "upper end",
        "uar_difference_seeds_low": "the same, lower end over seeds, 95 %",
        "uar_difference_seeds_high": "upper end",
        "test_utterances": "number of them",
    }

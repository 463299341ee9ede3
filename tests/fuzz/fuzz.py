"""Altered inputs for the parsers of what comes from outside, until the time is over.

    python tests/fuzz/fuzz.py [--minutes 10] [--only NAME] [--seed 0]      # `make fuzz`

Each parser gets a process of its own. An input is one of its seeds, altered at random: bits, bytes, copied,
removed and repeated pieces, numbers at the ends of their ranges. A parser may take it, or refuse it by an
error of this package. Findings are anything else: another exception, an end of the process, more than
``--seconds`` for one input, or memory beyond ``--gib``. A finding is written to ``--out`` and named with the
seed and the number of its input. The exit status is 1 if there is one. A finding becomes a case of
``tests/hostile``.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent))

from targets import TARGETS, Target  # pyright: ignore[reportMissingImports]

from gmp_atl_dist.errors import GmpAtlError

_START_S = 600.0
_CURRENT = "current"
_FINDING = "finding.txt"
_INTERESTING = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"\n",
        b",",
        b'"',
        b"[",
        b"{",
        b"\\",
        b"..",
        b"/",
        b"\xef\xbb\xbf",
        b"\xb2",
    ),
    *(
        b"-1",
        b"0",
        b"nan",
        b"inf",
        b"1e999",
        b"9" * 30,
        b"9" * 5000,
        b"\xff\xff\xff\xff",
        b"\x7f" * 8,
    ),
    *((1 << bits).to_bytes(9, "little")[:8] for bits in (15, 31, 32, 62, 63)),
)


@dataclass(frozen=True)
class Limits:
    """What one input may take."""

    seconds: int
    gib: float


class TooSlow(BaseException):
    """An input took longer than it may. No parser catches it."""


def altered(data: bytes, rng: random.Random) -> bytes:
    """One to eight alterations of ``data``."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        at = rng.randrange(len(made) + 1)
        length = min(len(made) - at, rng.choice((1, 1, 2, 4, 8, 64, 512)))
        kind = rng.randrange(7)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            made[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            del made[at : at + length]
        elif kind == 3:
            made[at:at] = rng.choice(_INTERESTING)
        elif kind == 4:
            word = rng.choice(_INTERESTING)
            made[at : at + len(word)] = word
        elif kind == 5:
            made[at:at] = made[at : at + length] * rng.choice((1, 2, 100))
        else:
            source = rng.randrange(len(made) + 1)
            made[at:at] = made[source : source + length]
    return bytes(made)


def input_of(target: Target, seed: int, number: int) -> bytes:
    """The input ``number`` of a parser: the same for the same seed."""
    rng = random.Random(f"{target.name} {seed} {number}")
    return altered(rng.choice(target.seeds), rng)


def try_one(parse: Callable[[bytes], object], data: bytes) -> str:
    """What is wrong with how ``data`` was taken; "" if nothing is."""
    try:
        parse(data)
    except GmpAtlError as e:
        return "" if e.message.strip() else "an error without a message"
    except TooSlow:
        return "too slow"
    except Exception:
        return traceback.format_exc(limit=-6)
    return ""


def _too_slow(signum: int, frame: FrameType | None) -> None:
    raise TooSlow


def work(target: Target, folder: str, seed: int, minutes: float, limits: Limits) -> None:
    """In a process of its own. Ends with 0, or with 1 and a finding in ``folder``."""
    # libmpg123 writes a line for every odd frame.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    limit = int(limits.gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _too_slow)
    current, counted = Path(folder, _CURRENT), Path(folder, "count")
    number = 0
    # From here on: on a busy machine the imports take a minute.
    until_s = time.monotonic() + 60 * minutes
    with target.parser() as parse:
        while time.monotonic() < until_s:
            data = input_of(target, seed, number)
            # If the process dies, the parent knows the input.
            current.write_bytes(data)
            counted.write_text(str(number))
            signal.alarm(limits.seconds)
            problem = try_one(parse, data)
            signal.alarm(0)
            if problem:
                Path(folder, _FINDING).write_text(problem)
                sys.exit(1)
            number += 1
    counted.write_text(str(number))


def run(target: Target, seed: int, minutes: float, limits: Limits, out: Path) -> bool:
    """Whether a parser held for so long. Says what it did."""
    with tempfile.TemporaryDirectory() as folder:
        process = get_context("spawn").Process(
            target=work, args=(target, folder, seed, minutes, limits)
        )
        process.start()
        process.join(60 * minutes + limits.seconds + _START_S)
        if process.is_alive():
            process.kill()
            process.join()
        counted, finding = Path(folder, "count"), Path(folder, _FINDING)
        number = counted.read_text() if counted.exists() else "0"
        if process.exitcode == 0:
            print(f"{target.name}: {number} inputs, no finding (seed {seed})", flush=True)
            return True
        problem = finding.read_text() if finding.exists() else f"ended with {process.exitcode}"
        out.mkdir(parents=True, exist_ok=True)
        kept = out / f"{target.name}-{seed}-{number}.bin"
        current = Path(folder, _CURRENT)
        kept.write_bytes(current.read_bytes() if current.exists() else b"")
        print(
            f"{target.name}: input {number} of seed {seed}, kept as {kept}:\n{problem}", flush=True
        )
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each parser")
    parser.add_argument("--only", choices=[target.name for target in TARGETS], action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=10, help="for one input")
    parser.add_argument("--gib", type=float, default=8.0, help="address space of a process")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    given = parser.parse_args()
    limits = Limits(given.seconds, given.gib)
    chosen = [target for target in TARGETS if not given.only or target.name in given.only]
    names = ", ".join(target.name for target in chosen)
    together = len(chosen) * given.minutes
    print(f"{names}: {given.minutes:g} min each, {together:g} min together", flush=True)
    held = [run(target, given.seed, given.minutes, limits, given.out) for target in chosen]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())

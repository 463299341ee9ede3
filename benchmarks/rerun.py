"""How long ``gmp-atl run`` takes when everything is done, against importing what it imports.

    python -m benchmarks.rerun --config configs/demo.toml --root runs/demo

The root must hold a finished run of that configuration.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from benchmarks.timing import interleaved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    cli = (sys.executable, "-m", "gmp_atl_dist.cli")
    timings = interleaved(
        {
            "run again": (*cli, "run", "--config", args.config, "--root", args.root),
            "status": (*cli, "status", "--config", args.config, "--root", args.root),
            "imports alone": (sys.executable, "-c", "import gmp_atl_dist.pipeline"),
        },
        args.rounds,
    )
    for name, timing in timings.items():
        print(f"{name:14} {timing.median_s:6.2f} s  ({timing.min_s:.2f} to {timing.max_s:.2f})")
    print(json.dumps({name: asdict(timing) for name, timing in timings.items()}))


if __name__ == "__main__":
    main()

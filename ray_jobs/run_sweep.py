"""Runs a whole sweep as one Ray job: ``ray job submit ... -- python ray_jobs/run_sweep.py ARGS``.

ARGS are the arguments of ``gmp-atl sweep``: ``--config FILE [--set a.b=c ...] [--root URI]``.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("gmp_atl_dist") is None:
    # The job runs in an image without the package, and its working directory is a checkout.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gmp_atl_dist.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "sweep")
    sys.exit(main())

"""``python -m gmp_atl_dist.cli``."""

import sys

from gmp_atl_dist.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

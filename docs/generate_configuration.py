"""Writes docs/configuration.md: what ``gmp-atl config schema --markdown`` prints.

python docs/generate_configuration.py            # write the page
python docs/generate_configuration.py --check    # 1 if the page is not up to date
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gmp_atl_dist.config.reference import COMMAND
from gmp_atl_dist.config.reference import reference as page

PAGE = Path(__file__).resolve().parent / "configuration.md"


def main(arguments: Sequence[str]) -> int:
    """Write the page, or compare it."""
    if list(arguments) == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE.name} is not up to date; run {COMMAND}", file=sys.stderr)
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What of a configuration is hashed, and how.

A fingerprint must survive a release. So a key of the science configuration that is added later is
declared with :class:`Added`: it names the release, and the value at which the key is left out of what is
hashed. At that value the key changes no fingerprint, and roots that were filled before stay valid. At
any other value it changes the fingerprints of the stages whose section it belongs to.

    ema_decay: Annotated[float, Added("0.3.0", left_out_at=0.0)] = 0.0

The value must be the one that gives the bytes of the releases before. A key is never renamed or removed
without a new layout version (``store/layout.py``). ``tests/stages/test_pinned_digests.py`` pins the digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True)
class Added:
    """Marks a key that was added after release 0.2.0, in its ``Annotated`` type.

    Args:
        release: the first release that has the key.
        left_out_at: the value at which it is left out of what is hashed.
    """

    release: str
    left_out_at: object


def canonical_json(value: Json) -> str:
    """One spelling for one value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Json) -> str:
    """sha256 of ``canonical_json(value)``."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()

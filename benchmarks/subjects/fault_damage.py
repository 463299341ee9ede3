"""Damage to stored objects, as by a disk or a person: altered, truncated, or exchanged."""

from __future__ import annotations

import random
from collections.abc import Callable

from gmp_atl_dist.store.filesystem import Store

_DATA = (["parts"], ["files"])
_FLIPPED = 3


def altered(uri: str, rng: random.Random) -> str:
    """Flip a bit in each of three bytes of an object; its path, or empty if there is none yet."""

    def flip(data: bytes) -> bytes:
        flipped = bytearray(data)
        for at in rng.sample(range(len(data)), min(_FLIPPED, len(data))):
            flipped[at] ^= 1 << rng.randrange(8)
        return bytes(flipped)

    return _changed(uri, rng, flip)


def truncated(uri: str, rng: random.Random) -> str:
    """Cut an object off somewhere; its path, or empty if there is none yet."""
    return _changed(uri, rng, lambda data: data[: rng.randrange(len(data))])


def swapped(uri: str, rng: random.Random) -> str:
    """Exchange two objects of one type; the path of the first, or empty if there are no two that differ."""
    store = Store.open(uri)
    types: dict[str, list[str]] = {}
    for place in _objects(store):
        types.setdefault(place.rpartition(".")[2], []).append(place)
    several = [places for _, places in sorted(types.items()) if len(places) > 1]
    if not several:
        return ""
    first, second = rng.sample(rng.choice(several), 2)
    a, b = store.read(first), store.read(second)
    store.put(first, b)
    store.put(second, a)
    return first if a != b else ""


def _changed(uri: str, rng: random.Random, change: Callable[[bytes], bytes]) -> str:
    store = Store.open(uri)
    places = _objects(store)
    if not places:
        return ""
    place = rng.choice(places)
    store.put(place, change(store.read(place)))
    return place


def _objects(store: Store) -> list[str]:
    """Parts and files of artefacts, finished or not, that have a byte."""
    return sorted(
        entry.path
        for entry in store.list("artifacts")
        # Not the receipts, which a finished artefact does not need.
        if entry.size and entry.path.split("/")[3:4] in _DATA
    )

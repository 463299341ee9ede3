"""Damage to stored objects, as by a disk or a person: altered, truncated, or exchanged."""

from __future__ import annotations

import random

from gmp_atl_dist.store.filesystem import Store

_DATA = ("parts", "files")
_FLIPPED = 3


def altered(uri: str, rng: random.Random) -> str:
    """Flip a bit in each of three bytes of an object; its path, or empty if there is none yet."""
    store = Store.open(uri)
    places = _objects(store)
    if not places:
        return ""
    place = rng.choice(places)
    data = bytearray(store.read(place))
    for at in rng.sample(range(len(data)), min(_FLIPPED, len(data))):
        data[at] ^= 1 << rng.randrange(8)
    store.put(place, bytes(data))
    return place


def truncated(uri: str, rng: random.Random) -> str:
    """Cut an object off somewhere; its path, or empty if there is none yet."""
    store = Store.open(uri)
    places = _objects(store)
    if not places:
        return ""
    place = rng.choice(places)
    data = store.read(place)
    store.put(place, data[: rng.randrange(len(data))])
    return place


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


def _objects(store: Store) -> list[str]:
    """Parts and files of artefacts, finished or not, that have a byte."""
    return sorted(
        entry.path
        for entry in store.list("artifacts")
        # Not the receipts, which a finished artefact does not need.
        if entry.size and entry.path.split("/")[3] in _DATA
    )

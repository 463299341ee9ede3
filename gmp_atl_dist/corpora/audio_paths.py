"""Absolute audio paths of a table: which file below the corpus they mean.

A path comes from data, so it must not lead anywhere else. It counts if it lies below the corpus itself,
or below ``corpus.audio_root``, the folder in which the corpus lay where the table was written.
"""

from __future__ import annotations

import os

_FILE = "file://"


def is_absolute(path: str) -> bool:
    """Whether the path is absolute, or a URI."""
    return path.startswith("/") or "://" in path


def below_corpus(path: str, corpus_uri: str, audio_root: str) -> str | None:
    """``path`` relative to the corpus; None if it lies nowhere below it.

    Args:
        path: an absolute path, or a URI.
        corpus_uri: the corpus as ``Store.uri`` writes it.
        audio_root: a folder or URI that stands for the corpus; "": none.
    """
    plain = path.removeprefix(_FILE)
    local = corpus_uri.removeprefix(_FILE) if corpus_uri.startswith(_FILE) else None
    for base in (audio_root.removeprefix(_FILE), local or corpus_uri):
        prefix = f"{base.rstrip('/')}/"
        if base and plain.startswith(prefix):
            relative = plain[len(prefix) :].lstrip("/")
            return relative if local is None else _without_leaving(local, relative)
    if local is None or not plain.startswith("/"):
        return None
    # Another name of the same folder, for example through a link.
    real, root = os.path.realpath(plain), os.path.realpath(local)
    return os.path.relpath(real, root) if _inside(real, root) else None


def _without_leaving(root: str, relative: str) -> str | None:
    """``relative``, unless a link on the way leads out of the root."""
    real = os.path.realpath(os.path.join(root, relative))
    return relative if _inside(real, os.path.realpath(root)) else None


def _inside(path: str, root: str) -> bool:
    return path.startswith(f"{root.rstrip('/')}/")

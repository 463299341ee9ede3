"""Misspelt URIs of folders and stores: what is wrong with them, and the right spelling.

``s3:/bucket`` is a valid relative path. Taken as one, results would go to a folder ``s3:`` in the working
directory, which on a cluster is each node's own disk.
"""

from __future__ import annotations

import re

_SCHEME = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<slashes>[/\\]*)(?P<rest>.*)", re.DOTALL
)
_STORES = frozenset(
    (
        "s3",
        "s3a",
        "s3n",
        "file",
        "hf",
        "gs",
        "gcs",
        "abfs",
        "abfss",
        "az",
        "wasb",
        "wasbs",
        "hdfs",
        "http",
        "https",
    )
)
"""Schemes of storage. After another word, a colon is part of a name unless a slash follows."""
OBJECT_STORES = ("s3://", "gs://", "az://")
"""How URIs of object storage begin, which every node reaches and where results can be written."""
SHARED = (*OBJECT_STORES, "hf://")
"""How URIs begin that mean the same on every node."""


def uri_problem(text: str) -> str:
    """What is wrong with a path or URI, and how it is written; "" if nothing is.

    A scheme that is spelled well and not supported is no fault here: ``Store.open`` names those that are.
    """
    if not text.strip():
        return "is empty; name a folder or s3://bucket/prefix, and look whether a variable is unset"
    if "\0" in text:
        return "holds a zero byte, which no path has; remove it"
    match = _SCHEME.match(text.strip())
    if match is None:
        return ""
    scheme, slashes, rest = match["scheme"], match["slashes"], match["rest"]
    store = scheme.lower() in _STORES
    if not (store or slashes):
        return ""
    if slashes[:2] != "//" or (store and scheme != scheme.lower()):
        if not store:
            path = f"./{text.strip()}"
            return f"looks like a URI; write {scheme}://{rest}, or {path} for a folder of that name"
        return f"is no URI; write {_right(scheme.lower(), rest)}"
    if text != text.strip():
        return f"has blanks around it; write {text.strip()}"
    if scheme != "file" or slashes.startswith("///"):
        return ""
    machine, slash, path = rest.partition("/")
    if not rest or not slash:
        relative = f", or {rest} for a folder below the working directory" if rest else ""
        return f"names no absolute path; write file:///{rest}{relative}"
    if machine == "localhost":
        return f"names a machine; write file:///{path}"
    return (
        f"names the machine {machine!r}; write file:///{rest} or file:///{path}, whichever is meant, "
        f"or {rest} for a folder below the working directory"
    )


def _right(scheme: str, rest: str) -> str:
    if scheme != "file":
        return f"{scheme}://{rest}"
    return f"file:///{rest.removeprefix('localhost/')}"

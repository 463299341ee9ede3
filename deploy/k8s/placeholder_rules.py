"""What a site must replace before it applies the manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from deploy.k8s.manifests import Manifest

_PLACEHOLDERS = {
    "CHANGE-ME": "write your value",
    "@sha256:" + 64 * "0": "name your image by its digest, under images: of your kustomization",
    "arn:aws:iam::000000000000:": "write the role of your account",
}


def placeholder_rules(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Placeholders that are left, each with its field. A pod with one of them starts late or never."""
    for manifest in manifests:
        where = f"{manifest['kind']}/{manifest['metadata'].get('name', '?')}"
        for field, text in _strings(manifest, ""):
            for placeholder, remedy in _PLACEHOLDERS.items():
                if placeholder in text:
                    yield f"{where}: {field} still has the placeholder in {_shown(text)!r}; {remedy}"


def _strings(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        # A comment of a configuration may explain a placeholder.
        lines = [line for line in value.splitlines() if not line.lstrip().startswith("#")]
        yield path.lstrip("."), "\n".join(lines)
    elif isinstance(value, Mapping):
        for key, below in value.items():
            yield from _strings(below, f"{path}.{key}")
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _strings(below, f"{path}.{i}")


def _shown(text: str) -> str:
    """The line with the placeholder, without most of a digest."""
    line = next(line for line in text.splitlines() if any(p in line for p in _PLACEHOLDERS))
    return line.replace(64 * "0", "000...")

"""What mkdocs does besides: pages made from files of the repository's root, and links to them.

README, CONTRIBUTING and CHANGELOG stand in the root, where people and package indexes look for
them. The site shows the same text as pages of its own. Links are written for a reader of the
repository; here they are rewritten for the site. A link to another file of the repository (a
source file, a configuration) becomes plain text, because the site does not have that file.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Linted where the extra `docs` need not be installed.
    from mkdocs.config.defaults import MkDocsConfig  # pyright: ignore[reportMissingImports]
    from mkdocs.structure.files import Files  # pyright: ignore[reportMissingImports]
    from mkdocs.structure.pages import Page  # pyright: ignore[reportMissingImports]

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES_OF_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""File of the repository's root -> page of the site."""

_DOCS = PurePosixPath("docs")
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
_FENCED = re.compile(r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)\s*$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root."""
    from mkdocs.structure.files import File  # pyright: ignore[reportMissingImports]

    for source, page in PAGES_OF_ROOT.items():
        text = (REPOSITORY / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=for_site(text, PurePosixPath(source))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of the pages in docs/."""
    if page.file.src_uri in PAGES_OF_ROOT.values():
        return markdown
    return for_site(markdown, _DOCS / page.file.src_uri)


def for_site(markdown: str, source: PurePosixPath) -> str:
    """The text of the repository's file ``source`` with links that hold on the site."""
    pieces: list[str] = []
    end = 0
    for fenced in _FENCED.finditer(markdown):
        pieces += [_rewritten(markdown[end : fenced.start()], source), fenced.group()]
        end = fenced.end()
    return "".join([*pieces, _rewritten(markdown[end:], source)])


def _rewritten(markdown: str, source: PurePosixPath) -> str:
    def replace(match: re.Match[str]) -> str:
        target, hash_, anchor = match["target"].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match.group()
        path = _normal(source.parent / target)
        page = PAGES_OF_ROOT.get(str(path))
        if page is None and path.is_relative_to(_DOCS):
            page = str(path.relative_to(_DOCS))
        if page is not None:
            # All pages of the site lie in one folder or below it, as docs/ has them.
            depth = len(source.parent.parts) - 1 if source.is_relative_to(_DOCS) else 0
            up = "../" * depth
            return f"{match['image']}[{match['text']}]({up}{page}{hash_}{anchor})"
        # What does not exist is left as it is, and fails the strict build.
        return match["text"] if (REPOSITORY / path).exists() else match.group()

    return _LINK.sub(replace, markdown)


def _normal(path: PurePosixPath) -> PurePosixPath:
    """Without ``..``; a path that leaves the repository keeps it."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return PurePosixPath(*parts)

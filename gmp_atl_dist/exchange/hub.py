"""Uploads an exported model to a hub: what would be sent, what to think of first, and the upload."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.exchange.models import EXPORTED_NAMES, ONNX_NAMES
from gmp_atl_dist.store.hub import limit_waits

_CARD = "README.md"
_NAMES = EXPORTED_NAMES | ONNX_NAMES
_ENDPOINT = "HF_ENDPOINT"


@dataclass(frozen=True)
class PushPlan:
    """What a push would send.

    Attributes:
        files: (name, bytes) of each file.
        title: the first heading of the card.
        license: what the card's header states.
        warnings: what to check before others see it.
    """

    folder: Path
    files: tuple[tuple[str, int], ...]
    title: str
    license: str
    warnings: tuple[str, ...]


def plan_push(folder: Path) -> PushPlan:
    """Look at a folder that ``gmp-atl model export`` wrote. Sends nothing.

    Raises:
        ArtifactError: it is no such folder, or has files that the export does not write.
    """
    if not folder.is_dir():
        raise ArtifactError(
            f"{folder} is no folder; export the model first: gmp-atl model export --help"
        )
    paths = sorted(folder.iterdir())
    foreign = [p.name for p in paths if p.name not in _NAMES or p.is_symlink() or not p.is_file()]
    if foreign:
        raise ArtifactError(
            f"{folder} contains {', '.join(foreign[:5])}, which gmp-atl model export does not write; "
            f"nothing but an exported model is uploaded; remove these files"
        )
    if not {_CARD} < {p.name for p in paths}:
        raise ArtifactError(f"{folder} is no exported model: it has no {_CARD}, or nothing else")
    card = (folder / _CARD).read_text(encoding="utf-8")
    title = re.search(r"^# (.+)$", card, re.MULTILINE)
    license = re.search(r'^license: "?([^"\n]+)"?$', card, re.MULTILINE)
    return PushPlan(
        folder=folder,
        files=tuple((p.name, p.stat().st_size) for p in paths),
        title=title.group(1) if title else "no title",
        license=license.group(1) if license else "none",
        warnings=tuple(_warnings(card, license.group(1) if license else "")),
    )


def push(plan: PushPlan, repo_id: str, *, private: bool) -> str:
    """Create the repository if it is not there, and upload all files in one commit; returns its URL.

    The token is the one of ``hf auth login``, or HF_TOKEN. No message has it.

    Raises:
        ConfigError: there is no token, or ``repo_id`` is no name of a repository.
        ArtifactError: the hub refused, or does not answer.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    check_repository(repo_id)
    token = get_token()
    if token is None:
        raise ConfigError("no token of the hub; run hf auth login, or set HF_TOKEN")
    api = HfApi(endpoint=os.environ.get(_ENDPOINT), token=token, library_name="gmp_atl_dist")
    limit_waits()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(plan.folder / name))
            for name, _ in plan.files
        ]
        commit = api.create_commit(repo_id, operations, commit_message=f"Upload {plan.title}")
    except Exception as e:  # the client and its HTTP library have many kinds
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0].replace(token, "***")
        raise ArtifactError(
            f"{repo_id}: the upload failed ({type(e).__name__}: {reason}); check the network, the name, and "
            f"that the token may write"
        ) from None
    return str(commit.commit_url)


def check_repository(repo_id: str) -> None:
    """Raises ConfigError if it is no name of a repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as e:
        raise ConfigError(f"{repo_id!r} is no name of a repository: {e}; give USER/NAME") from None
    if "/" not in repo_id:
        raise ConfigError(f"{repo_id!r} has no owner; give USER/NAME")


def _warnings(card: str, license: str) -> list[str]:
    found: list[str] = []
    if license in ("", "unknown"):
        found.append(
            "the licence is not stated: check what the corpus and the base model allow, and state it in "
            "the card's header"
        )
    if "> **Warning.**" in card:
        found.append("the card has a warning about the protocol: read it")
    if "**The corpus is synthetic**" in card:
        found.append("the corpus is synthetic: the model is of no use to others")
    return found

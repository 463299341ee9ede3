"""The command ``gmp-atl audit``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gmp_atl_dist.cli.tables import print_table
from gmp_atl_dist.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    from gmp_atl_dist.corpora.splits.audit import FoldAudit, Kind, Shared

_SHOWN_NAMES = 6
_HEADINGS = (
    *("fold", "train", "valid", "test", "speakers", "shared speakers", "shared audio"),
    *("shared dialogues", "shared sessions", "shared texts", "verdict"),
)
_WORDS = {"train": "training", "valid": "validation", "test": "test"}


def audit(
    lists: Annotated[
        list[str],
        typer.Argument(
            help="folders, files or patterns of lists: EmoBox JSONL, s3prl JSON, CSV or TSV"
        ),
    ],
    audio: Annotated[
        str, typer.Option(help="folder or URI of the recordings; compares their samples")
    ] = "",
    rule: Annotated[
        str, typer.Option(help="whose file names these are, e.g. emodb; auto; none")
    ] = "auto",
    speaker: Annotated[
        str, typer.Option(help="regular expression; its one group is the speaker in a path")
    ] = "",
    json_: Annotated[bool, typer.Option("--json", help="for a machine")] = False,
) -> int:
    """Say what training, validation and test of lists share; 3 on a leak, 2 if it cannot be told."""
    from gmp_atl_dist.corpora.splits.audit import audit_fold
    from gmp_atl_dist.corpora.splits.lists import read_lists
    from gmp_atl_dist.corpora.splits.recordings import RecordingNames
    from gmp_atl_dist.corpora.splits.rules import rule_of, speaker_rule
    from gmp_atl_dist.corpora.splits.told import tell
    from gmp_atl_dist.store.filesystem import Store

    if speaker and rule != "auto":
        raise ConfigError("--speaker and --rule exclude each other; keep one of them")
    own = speaker_rule(speaker) if speaker else None
    found = read_lists([os.path.expanduser(one) for one in lists])
    recordings = RecordingNames(Store.open(audio) if audio else None)
    audits: list[FoldAudit] = []
    for fold in found.folds:
        rows = [row for side in fold.sides.values() for row in side]
        audits.append(audit_fold(tell(fold, own or rule_of(rows, rule)), recordings))
    if json_:
        print(json.dumps([_as_json(a) for a in audits], indent=2, ensure_ascii=False))
    else:
        _show(audits, found.ignored)
        if audio:
            print(f"recordings: {recordings.num_read} read, {len(recordings.unread)} not found")
    return _ended(audits)


def _show(audits: Sequence[FoldAudit], ignored: Sequence[str]) -> None:
    print_table(_HEADINGS, [_row(a) for a in audits])
    for one in audits:
        for shared in one.shared:
            if shared.weight != "clean":
                print(f"{shared.weight}: {one.fold.name}: {sentence(one, shared)}")
        for reason in one.unknown:
            print(f"unknown: {one.fold.name}: {reason}")
        if one.num_apart:
            print(
                f"note: {one.fold.name}: {one.num_apart} recordings have segments in training and others "
                f"in test; these do not overlap"
            )
    sources = sorted({a.source for a in audits})
    for source in sources:
        count = sum(a.source == source for a in audits)
        print(f"speakers of {count} fold{'s' if count > 1 else ''}: {source}")
    if ignored:
        print(f"not lists of a side: {_some(ignored)}")


def sentence(audit: FoldAudit, shared: Shared) -> str:
    """What two sides share, in words."""
    a, b = (_WORDS[side] for side in shared.sides)
    total = len(audit.fold.rows(shared.sides[1]))
    return (
        f"{shared.kind} in {a} and in {b}: {len(shared.names)} ({_some(shared.names)}); "
        f"{shared.num_rows} of {total} {b} utterances"
    )


def _row(audit: FoldAudit) -> tuple[str, ...]:
    fold = audit.fold
    speakers = [str(len({r.speaker for r in fold.rows(side)} - {""})) for side in ("train", "test")]
    kinds: tuple[Kind, ...] = ("speakers", "audio", "dialogues", "sessions", "texts")
    return (
        fold.name,
        *(str(len(fold.rows(side)) or "") for side in ("train", "valid", "test")),
        " + ".join(speakers),
        *(str(len(s.names)) if (s := audit.of(kind)) else "" for kind in kinds),
        audit.verdict.upper() if audit.verdict == "leak" else audit.verdict,
    )


def _as_json(audit: FoldAudit) -> dict[str, object]:
    return {
        "fold": audit.fold.name,
        "verdict": audit.verdict,
        "speakers_from": audit.source,
        "utterances": {side: len(rows) for side, rows in audit.fold.sides.items()},
        "shared": [
            {
                "kind": s.kind,
                "sides": s.sides,
                "weight": s.weight,
                "names": s.names,
                "utterances": s.num_rows,
            }
            for s in audit.shared
        ],
        "unknown": audit.unknown,
        "recordings_cut_apart": audit.num_apart,
    }


def _some(names: Sequence[str]) -> str:
    more = f", ... {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def _ended(audits: Sequence[FoldAudit]) -> int:
    """0 if nothing leaks and everything could be compared.

    Raises:
        CorpusError: a fold leaks.
        ConfigError: a fold cannot be compared.
    """
    leaks = [a.fold.name for a in audits if a.verdict == "leak"]
    unknown = [a.fold.name for a in audits if a.verdict == "unknown"]
    if leaks:
        raise CorpusError(
            f"{len(leaks)} of {len(audits)} folds leak: {_some(leaks)}. Scores on them are no estimate for "
            f"unknown speakers; split by speaker (folds.k), or run them with folds.protocol = "
            f"'speaker_dependent'"
        )
    if unknown:
        raise ConfigError(
            f"{len(unknown)} of {len(audits)} folds cannot be judged: {_some(unknown)}. Nothing that could "
            f"be compared leaks. Give what is missing: speakers, by --speaker, --rule, or a column speaker; "
            f"a list; or the folder that the listed paths are relative to, by --audio"
        )
    return 0

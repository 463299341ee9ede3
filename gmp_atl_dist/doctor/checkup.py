"""Runs all checks in parallel, and repeats them until the time to wait is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.doctor.arms import Seen, merged, subject_of
from gmp_atl_dist.doctor.cluster import check_cluster
from gmp_atl_dist.doctor.corpus import check_corpus
from gmp_atl_dist.doctor.deadline import BackgroundCall
from gmp_atl_dist.doctor.findings import Finding, fatal, is_fatal, redacted
from gmp_atl_dist.doctor.lineage import LINEAGE_CHECK, check_leaks
from gmp_atl_dist.doctor.machine import check_machine
from gmp_atl_dist.doctor.storage import check_store
from gmp_atl_dist.errors import ConfigError

_RETRY_S = 3.0

Arms: TypeAlias = Mapping[str, RunConfig]
"""Configurations by the name of their arm; a single one has any name."""


@dataclass(frozen=True)
class Timeouts:
    """Time limits in seconds: S3's answers (at most twice), Ray's answer, labels, all checks."""

    s3_s: float = 3.0
    ray_s: float = 10.0
    labels_s: float = 15.0
    check_s: float = 40.0


def examine(arms: Arms, timeouts: Timeouts | None = None) -> list[Finding]:
    """All findings, in a fixed order, without secrets.

    A check that would be the same for several arms is made once. A problem that not all arms have names its
    arms.
    """
    limits = timeouts or Timeouts()
    calls: dict[tuple[str, str], BackgroundCall[list[Finding]]] = {}
    subjects: dict[str, dict[tuple[str, str], list[str]]] = {}
    for arm, config in arms.items():
        for name, check in _checks(config, limits).items():
            subject = (name, subject_of(name, config))
            if subject not in calls:
                calls[subject] = BackgroundCall(lambda check=check: list(check()))
            subjects.setdefault(name, {}).setdefault(subject, []).append(arm)
    deadline_s = time.monotonic() + limits.check_s
    findings: list[Finding] = []
    for of_check in subjects.values():
        seen = [
            Seen(tuple(names), _result(subject[0], calls[subject], deadline_s))
            for subject, names in of_check.items()
        ]
        findings += merged(seen, tuple(arms))
    return [redacted(finding) for finding in findings]


def _checks(config: RunConfig, limits: Timeouts) -> dict[str, Callable[[], Iterator[Finding]]]:
    settings, unused = config.runtime, config.unused_workers
    return {
        "store": lambda: check_store(settings.root, limits.s3_s),
        "corpus": lambda: check_corpus(config, limits.s3_s, limits.labels_s),
        LINEAGE_CHECK: lambda: check_leaks(config, limits.s3_s, limits.labels_s),
        "ray": lambda: check_cluster(settings, limits.ray_s, unused=unused, whole=config),
        "machine": lambda: check_machine(settings, unused),
    }


def _result(name: str, call: BackgroundCall[list[Finding]], deadline_s: float) -> list[Finding]:
    try:
        return call.result(max(0.0, deadline_s - time.monotonic()))
    except TimeoutError as e:
        remedy = "something hangs, for example a dead network mount; check it by hand"
        return [fatal(name, "the check itself", str(e), remedy)]
    except Exception as e:
        value = f"{type(e).__name__}: {e}"
        return [fatal(name, "the check itself", value, "report this as a defect")]


def checkup(
    load: Callable[[], Arms],
    wait_s: float = 0.0,
    waiting: Callable[[list[Finding]], None] = lambda findings: None,
    timeouts: Timeouts | None = None,
) -> list[Finding]:
    """Repeat the checks until no finding is fatal or ``wait_s`` seconds have passed.

    Args:
        load: loads the configurations. One that does not load is not retried.
        wait_s: 0: check once.
        waiting: called with the findings before each repetition.
        timeouts: the default ones unless given.
    """
    try:
        arms = load()
    except ConfigError as e:
        problems = [line.removeprefix("  - ") for line in e.message.splitlines()]
        shown = problems[1:] or problems
        remedy = "correct the file; gmp-atl config schema describes each key"
        return [redacted(fatal("configuration", "--config", line, remedy)) for line in shown]
    value = "loads" if len(arms) == 1 else f"loads, with {len(arms)} arms"
    loaded = Finding("configuration", "--config", value)
    until_s = time.monotonic() + wait_s
    while True:
        findings = [loaded, *examine(arms, timeouts)]
        if not is_fatal(findings) or time.monotonic() + _RETRY_S > until_s:
            return findings
        waiting(findings)
        time.sleep(_RETRY_S)

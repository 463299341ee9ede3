"""Runs all checks in parallel, and repeats them until the time to wait is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.doctor.cluster import check_cluster
from gmp_atl_dist.doctor.corpus import check_corpus
from gmp_atl_dist.doctor.deadline import BackgroundCall
from gmp_atl_dist.doctor.findings import Finding, fatal, is_fatal, redacted
from gmp_atl_dist.doctor.machine import check_machine
from gmp_atl_dist.doctor.storage import check_store
from gmp_atl_dist.errors import ConfigError

_RETRY_S = 3.0


@dataclass(frozen=True)
class Timeouts:
    """Time limits in seconds: S3's answers (at most twice), Ray's answer, labels, all checks."""

    s3_s: float = 3.0
    ray_s: float = 10.0
    labels_s: float = 15.0
    check_s: float = 40.0


def examine(config: RunConfig, timeouts: Timeouts | None = None) -> list[Finding]:
    """All findings, in a fixed order, without secrets."""
    limits = timeouts or Timeouts()
    settings = config.runtime
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "store": lambda: check_store(settings.root, limits.s3_s),
        "corpus": lambda: check_corpus(config, limits.s3_s, limits.labels_s),
        "ray": lambda: check_cluster(settings, limits.ray_s, unused=config.unused_workers),
        "machine": lambda: check_machine(settings, config.unused_workers),
    }
    calls = {
        name: BackgroundCall(lambda check=check: list(check())) for name, check in checks.items()
    }
    deadline_s = time.monotonic() + limits.check_s
    findings: list[Finding] = []
    for name, call in calls.items():
        try:
            findings += call.result(max(0.0, deadline_s - time.monotonic()))
        except TimeoutError as e:
            remedy = "something hangs, for example a dead network mount; check it by hand"
            findings.append(fatal(name, "the check itself", str(e), remedy))
        except Exception as e:
            value = f"{type(e).__name__}: {e}"
            findings.append(fatal(name, "the check itself", value, "report this as a defect"))
    return [redacted(finding) for finding in findings]


def checkup(
    load: Callable[[], RunConfig],
    wait_s: float = 0.0,
    waiting: Callable[[list[Finding]], None] = lambda findings: None,
    timeouts: Timeouts | None = None,
) -> list[Finding]:
    """Repeat the checks until no finding is fatal or ``wait_s`` seconds have passed.

    Args:
        load: loads the configuration. A configuration that does not load is not retried.
        wait_s: 0: check once.
        waiting: called with the findings before each repetition.
        timeouts: the default ones unless given.
    """
    try:
        config = load()
    except ConfigError as e:
        problems = [line.removeprefix("  - ") for line in e.message.splitlines()]
        shown = problems[1:] or problems
        remedy = "correct the file; gmp-atl config schema describes each key"
        return [redacted(fatal("configuration", "--config", line, remedy)) for line in shown]
    loaded = Finding("configuration", "--config", "loads")
    until_s = time.monotonic() + wait_s
    while True:
        findings = [loaded, *examine(config, timeouts)]
        if not is_fatal(findings) or time.monotonic() + _RETRY_S > until_s:
            return findings
        waiting(findings)
        time.sleep(_RETRY_S)

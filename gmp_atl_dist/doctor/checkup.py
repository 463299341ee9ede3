"""All checks, at the same time, and again while there is time left to wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.doctor.cluster import check_cluster
from gmp_atl_dist.doctor.corpus import check_corpus
from gmp_atl_dist.doctor.deadline import Attempts
from gmp_atl_dist.doctor.findings import Finding, fatal, is_fatal, published
from gmp_atl_dist.doctor.machine import check_machine
from gmp_atl_dist.doctor.storage import check_store
from gmp_atl_dist.errors import ConfigError

_AGAIN_S = 3.0


@dataclass(frozen=True)
class Patience:
    """How long is waited for an answer of S3 (twice at most), of Ray, for labels, and for each check."""

    s3_s: float = 3.0
    ray_s: float = 10.0
    labels_s: float = 15.0
    check_s: float = 40.0


def examine(config: RunConfig, patience: Patience | None = None) -> list[Finding]:
    """Every finding, in a fixed order, fit to be shown."""
    limits = patience or Patience()
    settings = config.runtime
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "store": lambda: check_store(settings.root, limits.s3_s),
        "corpus": lambda: check_corpus(config, limits.s3_s, limits.labels_s),
        "ray": lambda: check_cluster(settings, limits.ray_s),
        "machine": lambda: check_machine(settings),
    }
    begun = {name: Attempts(lambda check=check: list(check())) for name, check in checks.items()}
    deadline_s = time.monotonic() + limits.check_s
    findings: list[Finding] = []
    for name, work in begun.items():
        try:
            findings += work.result(max(0.0, deadline_s - time.monotonic()))
        except TimeoutError as e:
            remedy = "something hangs, such as a dead network mount; look at it by hand"
            findings.append(fatal(name, "the check itself", str(e), remedy))
        except Exception as e:
            value = f"{type(e).__name__}: {e}"
            findings.append(fatal(name, "the check itself", value, "report this as a defect"))
    return [published(finding) for finding in findings]


def checkup(
    load: Callable[[], RunConfig],
    wait_s: float = 0.0,
    waiting: Callable[[list[Finding]], None] = lambda findings: None,
    patience: Patience | None = None,
) -> list[Finding]:
    """Examine what ``load`` gives, until nothing is fatal or ``wait_s`` have passed.

    ``waiting`` is told what is waited for. A configuration that does not load is not waited for.
    """
    try:
        config = load()
    except ConfigError as e:
        problems = [line.removeprefix("  - ") for line in e.message.splitlines()]
        shown = problems[1:] or problems
        remedy = "mend the file; gmp-atl config schema says what each key means"
        return [published(fatal("configuration", "--config", line, remedy)) for line in shown]
    loaded = Finding("configuration", "--config", "loads")
    until_s = time.monotonic() + wait_s
    while True:
        findings = [loaded, *examine(config, patience)]
        if not is_fatal(findings) or time.monotonic() + _AGAIN_S > until_s:
            return findings
        waiting(findings)
        time.sleep(_AGAIN_S)

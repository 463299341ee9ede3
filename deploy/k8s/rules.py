"""Checks rendered manifests against rules that no schema contains: KubeRay's, Kueue's and ours.

    kubectl kustomize OVERLAY | python deploy/k8s/rules.py [--tags] [--placeholders]

It needs PyYAML and pydantic, which this package installs. The exit status is 1 if a rule is broken.
``--tags`` allows images that are named by tag, for use on one machine. ``--placeholders`` allows what your
kustomization must replace: images whose digest is all zeros, and CHANGE-ME.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

if not __package__:  # started by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.k8s.demand_rules import demand_rules
from deploy.k8s.house_rules import house_rules
from deploy.k8s.manifests import Manifest, ray_jobs
from deploy.k8s.operator_rules import operator_rules
from deploy.k8s.placeholder_rules import placeholder_rules
from deploy.k8s.service_rules import service_rules


def broken_rules(
    manifests: Sequence[Manifest], *, tags: bool = False, placeholders: bool = False
) -> list[str]:
    """A message for every broken rule.

    Args:
        manifests: rendered by ``kubectl kustomize``.
        tags: allow images that are named by tag.
        placeholders: allow what a site must replace.
    """
    refused = [problem for job in ray_jobs(manifests) for problem in operator_rules(job)]
    for service in manifests:
        if service["kind"] == "RayService":
            refused += service_rules(service)
    refused += house_rules(manifests, tags=tags)
    refused += demand_rules(manifests)
    return refused if placeholders else refused + list(placeholder_rules(manifests))


if __name__ == "__main__":
    problems = broken_rules(
        [m for m in yaml.safe_load_all(sys.stdin) if m],
        tags="--tags" in sys.argv,
        placeholders="--placeholders" in sys.argv,
    )
    print("\n".join(problems) or "no rule is broken")
    sys.exit(1 if problems else 0)

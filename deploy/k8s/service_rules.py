"""The rules of KubeRay, and ours, for a RayService."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from deploy.k8s.house_rules import drain_rules, head_rules
from deploy.k8s.manifests import Manifest, groups_of
from deploy.k8s.operator_rules import MAX_NAME, cluster_rules

_SERVE_TOKEN = "GMP_ATL_SERVE_TOKEN"


def service_rules(service: Manifest) -> Iterator[str]:
    """The rules of KubeRay, and ours, that a RayService breaks."""
    spec, cluster = service["spec"], service["spec"].get("rayClusterConfig") or {}
    name = service["metadata"].get("name", "")
    if len(name) > MAX_NAME or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"name {name!r}: must be a DNS label of at most {MAX_NAME} characters"
    yield from cluster_rules(cluster)
    yield from head_rules(cluster)
    yield from drain_rules(cluster)
    config = yaml.safe_load(spec.get("serveConfigV2") or "{}")
    port = (config.get("http_options") or {}).get("port", 8000)
    if (config.get("http_options") or {}).get("host") != "0.0.0.0":
        yield "serveConfigV2: http_options.host must be 0.0.0.0, or no other pod reaches it"
    if not config.get("applications"):
        yield "serveConfigV2: no application"
    for group, holder in groups_of(cluster).items():
        container = holder["template"]["spec"]["containers"][0]
        tokens = [e for e in container.get("env", ()) if e["name"] == _SERVE_TOKEN]
        if not tokens or "secretKeyRef" not in (tokens[0].get("valueFrom") or {}):
            yield f"{group}: {_SERVE_TOKEN} must come from a Secret"
        probe = (container.get("readinessProbe") or {}).get("httpGet") or {}
        named = {p.get("name"): p["containerPort"] for p in container.get("ports", ())}
        if group != "head" and named.get(probe.get("port"), probe.get("port")) != port:
            yield f"{group}: readinessProbe.httpGet must ask port {port}; KubeRay's own needs wget"

"""The runbook, the alert rules, the dashboard and the policies hold together; Ray is asked elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
OBSERVABILITY = REPOSITORY / "deploy" / "observability"
RUNBOOK = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def rules() -> list[dict[str, Any]]:
    spec = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text(encoding="utf-8"))["spec"]
    return [rule for group in spec["groups"] for rule in group["rules"]]


def test_each_alert_leads_to_its_heading() -> None:
    named = {rule["alert"]: rule["annotations"]["runbook"] for rule in rules()}
    headings = [h for h in HEADING.findall(RUNBOOK) if h.startswith("GmpAtl")]
    assert sorted(named) == sorted(headings)
    assert named == {h: f"docs/operations.md#{anchor(h)}" for h in headings}
    assert all({"severity"} == set(rule["labels"]) for rule in rules())


def test_an_idle_gpu_is_measured_by_what_stages_say() -> None:
    """By no percentage of a card: only where no stage runs is there a fixed one."""
    (rule,) = [rule for rule in rules() if rule["alert"] == "GmpAtlGpuIdle"]
    of_stages, without = re.split(r"^or$", rule["expr"], flags=re.MULTILINE)
    assert set(re.findall(r"ray_gmp_atl_\w+", of_stages)) == {
        *("ray_gmp_atl_busy_share", "ray_gmp_atl_data_wait_share"),
        "ray_gmp_atl_checkpoint_stall_share",
    }
    assert not re.search(r"[<>]\s*\d", of_stages)
    assert re.search(r"< 1\s+unless on \(\) \(ray_gmp_atl_busy_share", without)
    for half in (of_stages, without):
        assert half.count("(") == half.count(")")


def test_links_within_the_runbook_lead_somewhere() -> None:
    anchors = {anchor(h) for h in HEADING.findall(RUNBOOK)}
    links = set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK))
    assert links
    assert links <= anchors


def test_the_dashboard_works_with_any_prometheus() -> None:
    text = (OBSERVABILITY / "grafana-dashboard.json").read_text(encoding="utf-8")
    dashboard = json.loads(text)
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {
        "datasource",
        "run",
    }
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            assert "ray_gmp_atl_" not in target["expr"] or '{run=~"$run"}' in target["expr"]


def test_policies_let_nobody_out_of_his_prefix() -> None:
    policies = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", RUNBOOK, re.DOTALL)]
    assert len(policies) == 3
    for statement in (s for policy in policies for s in policy.get("Statement", [])):
        actions, resource = statement["Action"], statement["Resource"]
        assert "*" not in str(actions)
        if actions == "s3:ListBucket":
            prefixes = statement["Condition"]["StringLike"]["s3:prefix"]
            assert all(p.partition("/")[0] in ("team-a", "corpora") for p in prefixes)
        elif "PutObject" in str(actions) or "DeleteObject" in str(actions):
            assert resource == "arn:aws:s3:::BUCKET/team-a/*"
        else:
            assert re.fullmatch(r"arn:aws:s3:::BUCKET/(team-a|corpora)/\*", resource)
    for binding in policies[2]["bindings"]:
        assert binding["condition"]["expression"].count("startsWith") == 2

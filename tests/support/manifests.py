"""Manifests of deploy/k8s as kubectl renders them: the fixture and functions that tests share.

Test modules get the fixture by ``pytest_plugins = ["support.manifests"]``. They import it before pytest could
rewrite its assertions, and it has none: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.k8s.manifests import ray_jobs

REPOSITORY = Path(__file__).resolve().parents[2]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifests = list[dict[str, Any]]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since the local overlay needs a file with keys that is its user's."""
    if shutil.which("kubectl") is None:
        if os.environ.get("GMP_ATL_CI"):
            pytest.fail("kubectl is not installed, and in CI the manifests must be checked")
        pytest.skip("kubectl is not installed here")
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("configs", "deploy/k8s"):
        shutil.copytree(REPOSITORY / folder, root / folder)
    keys = "AWS_ACCESS_KEY_ID=me\nAWS_SECRET_ACCESS_KEY=mine\n"
    (root / "deploy/k8s/overlays/local/s3.env").write_text(keys)
    return root


def kustomize(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["kubectl", "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@cache
def text_of(folder: Path) -> str:
    done = kustomize(folder)
    if done.returncode:
        pytest.fail(f"kubectl kustomize {folder}: {done.stderr}")
    return done.stdout


def rendered(folder: Path) -> Manifests:
    return [m for m in yaml.load_all(text_of(folder), Loader=LOADER) if m]


def overlay(checkout: Path, name: str) -> Manifests:
    return rendered(checkout / "deploy/k8s/overlays" / name)


def site(checkout: Path, name: str, text: str) -> Path:
    """A kustomization of somebody's own."""
    folder = checkout / "sites" / name
    folder.mkdir(parents=True, exist_ok=True)
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
    (folder / "kustomization.yaml").write_text(head + text)
    return folder


def the_job(manifests: Manifests) -> dict[str, Any]:
    (job,) = ray_jobs(manifests)
    return dict(job)


def by_kind(manifests: Manifests, kind: str) -> Manifests:
    return [m for m in manifests if m["kind"] == kind]

"""The store, on a real S3 server and on a disk, whole and broken in each of the ways we know."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from support.s3_server import S3Server, free_ports
from support.tampering import Answer, tampered

from gmp_atl_dist.doctor.findings import Finding, is_fatal, redacted
from gmp_atl_dist.doctor.storage import check_store, compare_clocks
from gmp_atl_dist.store.filesystem import Store

TIMEOUT_S = 0.5
AT_ONCE_S = 10.0


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 keeps the first credentials that a process had."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.fixture
def blackhole() -> Iterator[str]:
    """An endpoint that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


def only_bad(root: str, timeout_s: float = 3.0) -> Finding:
    (found,) = [f for f in check_store(root, timeout_s) if f.severity != "ok"]
    return redacted(found)


def test_a_good_store_passes_and_nothing_stays_in_it(store_uri: str) -> None:
    found = list(check_store(store_uri, 3.0))

    assert [f.severity for f in found] == ["ok"] * 5
    assert [f.check for f in found] == ["store", "store", "store", "clock", "store"]
    assert "exactly one of two exclusive puts succeeds" in found[-1].value
    assert Store.open(store_uri).list() == []


def test_the_endpoint_is_named_without_the_user_in_it(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = s3_server.endpoint.removeprefix("http://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://somebody:hunter2@{host}")

    found = [redacted(f) for f in check_store(s3_server.new_uri(), TIMEOUT_S)]

    assert host in found[0].item
    assert not any("hunter2" in str(f) for f in found)


def test_an_endpoint_that_refuses(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    began_s = time.monotonic()

    found = only_bad(s3_server.new_uri())

    assert time.monotonic() - began_s < AT_ONCE_S
    assert found.severity == "fatal"
    assert endpoint in found.value
    assert "AWS_ENDPOINT_URL" in found.remedy


def test_an_endpoint_that_never_answers(
    s3_server: S3Server, blackhole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", blackhole)
    began_s = time.monotonic()

    found = only_bad(s3_server.new_uri(), TIMEOUT_S)

    assert time.monotonic() - began_s < AT_ONCE_S
    assert found.severity == "fatal"
    assert "does not answer (ReadTimeoutError)" in found.value


def test_no_credentials(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))

    found = only_bad(s3_server.new_uri())

    assert found.severity == "fatal"
    assert "no credentials for S3 were found" in found.value
    assert "AWS_SECRET_ACCESS_KEY" in found.remedy


def test_a_wrong_secret_is_not_quoted(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-of-another")

    found = only_bad(s3_server.new_uri())

    assert found.severity == "fatal"
    assert "SignatureDoesNotMatch" in found.value
    assert "the-secret-of-another" not in str(found)


def test_a_bucket_that_is_not_there(s3_server: S3Server) -> None:
    found = only_bad("s3://no-such-bucket/x")

    assert found.severity == "fatal"
    assert "NoSuchBucket" in found.value
    assert "create the bucket" in found.remedy


def test_a_store_that_ignores_the_condition_of_a_put(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignore(method: str, answer: Answer) -> Answer:
        refused = method == "PUT" and answer.status == 412
        return Answer(200, {"ETag": '"0"'}, b"") if refused else answer

    with tampered(s3_server.endpoint, ignore) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        found = only_bad(s3_server.new_uri())

    assert found.severity == "warning"
    assert "2 of two exclusive puts succeeded" in found.value
    assert "If-None-Match" in found.remedy


def test_a_store_that_forgets_what_it_is_given(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(method: str, answer: Answer) -> Answer:
        if method == "GET" and answer.status in (200, 206) and len(answer.body) == 16:
            return Answer(answer.status, answer.headers, b"x" * 16)
        return answer

    with tampered(s3_server.endpoint, swap) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        found = only_bad(s3_server.new_uri())

    assert found.severity == "fatal"
    assert "other bytes than were written" in found.value


@pytest.mark.parametrize(("off_s", "severity"), [(400, "fatal"), (-400, "fatal"), (120, "warning")])
def test_a_clock_that_is_off(store_uri: str, off_s: float, severity: str) -> None:
    found = list(check_store(store_uri, 3.0, now=lambda: time.time() + off_s))

    (clock,) = [f for f in found if f.check == "clock"]
    assert clock.severity == severity
    assert ("behind" if off_s > 0 else "ahead of") in clock.value
    assert is_fatal(found) == (severity == "fatal")


def test_a_clock_so_far_off_that_s3_refuses(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(method: str, answer: Answer) -> Answer:
        body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>"
        return Answer(403, {"Date": "Thu, 01 Jan 1970 01:00:00 GMT"}, body)

    with tampered(s3_server.endpoint, refuse) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        (found,) = check_store(s3_server.new_uri(), TIMEOUT_S, now=lambda: 0.0)

    assert (found.check, found.severity) == ("clock", "fatal")
    assert "3600 s ahead of this machine's" in found.value


def test_a_clock_within_a_minute_is_none_of_our_business() -> None:
    assert compare_clocks("store", 59).severity == "ok"
    assert compare_clocks("store", -61).severity == "warning"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)

    found = only_bad(str(tmp_path / "root"))

    assert found.severity == "fatal"
    assert "read and write" in found.remedy


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    found = only_bad(str(tmp_path / "file" / "root"))

    assert found.severity == "fatal"
    assert "name a folder" in found.remedy


def test_a_root_of_an_unknown_kind() -> None:
    assert "ftp" in only_bad("ftp://bucket/x").value

"""Answers that are no prediction: each has a status, a code for programs and a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping

STATUS_OF: Mapping[str, int] = {
    "no_recording": 400,
    "bad_form": 400,
    "bad_parameter": 400,
    "bad_window": 400,
    "bad_request": 400,
    "wrong_host": 400,
    "no_token": 401,
    "not_found": 404,
    "wrong_method": 405,
    "upload_too_slow": 408,
    "too_large": 413,
    "too_long": 413,
    "too_many_samples": 413,
    "not_audio": 415,
    "unusable_recording": 422,
    "too_short": 422,
    "decoding_too_slow": 422,
    "internal_error": 500,
    "overloaded": 503,
}
"""All codes, and the status of each."""


class Refusal(Exception):
    """A request that is not answered with a prediction.

    Args:
        status: HTTP status.
        code: a short name that stays the same in later releases.
        message: what was found, and what to do.
        retry_after_s: when the client may try again, for a status that passes.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> Mapping[str, str]:
        named: dict[str, str] = {}
        if self.retry_after_s is not None:
            named["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            named["WWW-Authenticate"] = "Bearer"
        return named

    def body(self) -> dict[str, dict[str, str]]:
        return {"error": {"code": self.code, "message": self.message}}


def not_found(path: str) -> Refusal:
    return Refusal(
        404, "not_found", f"{path} is not a page of this server; /docs lists the endpoints"
    )


def wrong_method(method: str, path: str) -> Refusal:
    return Refusal(405, "wrong_method", f"{path} does not take {method}; /docs lists the endpoints")


def overloaded(what: str, retry_after_s: int) -> Refusal:
    return Refusal(
        503,
        "overloaded",
        f"the server is busy: {what}; try again in {retry_after_s} s",
        retry_after_s,
    )


def internal_error() -> Refusal:
    return Refusal(
        500, "internal_error", "the server failed at this request; its log has the reason"
    )

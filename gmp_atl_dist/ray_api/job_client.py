"""Ray's client of the job API with limits: its requests would wait for an answer for ever."""

from __future__ import annotations

from typing import Any

from ray.job_submission import JobSubmissionClient

_CONNECT_S = 10.0
_ANSWER_S = 60.0
"""Without a byte. The dashboard unpacks an uploaded folder before it answers."""


class LimitedJobClient(JobSubmissionClient):
    """Each request ends with ``requests.Timeout`` when nothing was answered for a minute."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        options.setdefault("timeout", (_CONNECT_S, _ANSWER_S))
        return super()._do_request(method, endpoint, **options)

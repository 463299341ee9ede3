"""Counts of a server, in the text format that Prometheus reads."""

from __future__ import annotations

from collections import Counter

from gmp_atl_dist.serving.runner import Computed

_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Counters:
    """Counts since the start of this process. It belongs to one event loop, so it needs no lock."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._refused: Counter[str] = Counter()
        self._buckets = [0] * len(_BOUNDS_S)
        self._answers = 0
        self._answers_s = 0.0
        self._audio_s = 0.0
        self._clips = 0
        self._retries = 0
        self._batch_clips_sum = 0
        self._batches_seen = 0

    def request(self, path: str, status: int) -> None:
        self._requests[path, status] += 1

    def refused(self, code: str) -> None:
        self._refused[code] += 1

    def retried(self) -> None:
        """A job was sent again because its replica died."""
        self._retries += 1

    def answered(self, seconds: float, audio_s: float, computed: list[Computed]) -> None:
        self._answers += 1
        self._answers_s += seconds
        self._audio_s += audio_s
        self._clips += sum(len(one.probabilities) for one in computed)
        self._batches_seen += len(computed)
        self._batch_clips_sum += sum(one.batch_clips for one in computed)
        for i, bound_s in enumerate(_BOUNDS_S):
            self._buckets[i] += seconds <= bound_s

    def text(self, in_flight: int) -> str:
        lines: list[str] = []

        def metric(name: str, kind: str, description: str, samples: dict[str, float]) -> None:
            name = f"gmp_atl_serve_{name}"
            lines.extend([f"# HELP {name} {description}", f"# TYPE {name} {kind}"])
            lines.extend(f"{name}{labels} {value:g}" for labels, value in samples.items())

        metric(
            "requests_total",
            "counter",
            "answers by path and status",
            {f'{{path="{p}",status="{s}"}}': n for (p, s), n in sorted(self._requests.items())},
        )
        metric(
            "refused_total",
            "counter",
            "answers that are no prediction, by their code",
            {f'{{code="{code}"}}': n for code, n in sorted(self._refused.items())},
        )
        buckets = zip((f"{b:g}" for b in _BOUNDS_S), self._buckets, strict=True)
        metric(
            "answer_seconds",
            "histogram",
            "time from the whole upload to the prediction",
            {
                **{f'_bucket{{le="{bound}"}}': n for bound, n in buckets},
                '_bucket{le="+Inf"}': self._answers,
                "_sum": self._answers_s,
                "_count": self._answers,
            },
        )
        for name, kind, description, value in (
            ("audio_seconds_total", "counter", "length of the predicted recordings", self._audio_s),
            ("clips_total", "counter", "clips that were computed", self._clips),
            ("jobs_total", "counter", "jobs that were computed", self._batches_seen),
            (
                "batch_clips_total",
                "counter",
                "clips in the batch of each job",
                self._batch_clips_sum,
            ),
            ("retried_total", "counter", "jobs sent again after a replica died", self._retries),
            ("in_flight", "gauge", "requests that are held now", in_flight),
        ):
            metric(name, kind, description, {"": value})
        return "\n".join(lines) + "\n"

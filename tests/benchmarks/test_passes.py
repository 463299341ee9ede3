"""One pass of a model: its clips, and the profile of its operators."""

from __future__ import annotations

import pytest

from benchmarks.passes import GROUPS
from benchmarks.subjects.model_pass import Clips, measure_pass, profile_pass


def test_the_clips_have_the_audio_and_the_mean_length_that_are_asked_for() -> None:
    wave_BN, num_samples_B = Clips("tiny", 20.0, 2.5, 0.1).waves()
    assert wave_BN.shape == (8, 48_000)
    assert int(num_samples_B.sum()) == pytest.approx(20 * 16_000, abs=8)
    assert int(num_samples_B.min()) == 32_000

    _, one_B = Clips("tiny", 3.0, 3.0, 0.1).waves()
    assert one_B.tolist() == [48_000]


def test_the_groups_of_a_profile_add_up_to_the_pass() -> None:
    shares = profile_pass(Clips("tiny", 2.0, 1.0, 0.1))
    assert shares.keys() == GROUPS.keys()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["products"] > 0.02
    assert shares["activations"] > 0


@pytest.mark.parametrize("subject", ["packed", "padded", "checkpointed"])
def test_a_pass_is_timed(subject: str) -> None:
    found = measure_pass(subject, Clips("tiny", 2.0, 1.0, 0.1))
    assert 0 < found.matmul_share < 1
    assert found.cpu_s > 0
    assert found.peak_mib > 50

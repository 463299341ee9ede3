from __future__ import annotations

import pickle

import pytest

from gmp_atl_dist import errors
from gmp_atl_dist.errors import GmpAtlError

ALL = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, GmpAtlError)]


@pytest.mark.parametrize("kind", ALL)
def test_an_error_survives_the_way_between_processes(kind: type[GmpAtlError]) -> None:
    e = kind.of_all("two are bad:", ["a: gone", "b: empty"])

    copy = pickle.loads(pickle.dumps(e))

    assert type(copy) is kind
    assert copy.message == str(copy) == "two are bad:\n  - a: gone\n  - b: empty"


def test_exit_codes_differ_and_are_not_success() -> None:
    codes = [kind.exit_code for kind in ALL]

    assert len(set(codes)) == len(codes)
    assert 0 not in codes


@pytest.mark.parametrize(("num_problems", "last"), [(50, "  - 49"), (51, "  ... and 1 more")])
def test_a_long_list_is_cut(num_problems: int, last: str) -> None:
    e = GmpAtlError.of_all("bad:", [str(i) for i in range(num_problems)])

    lines = e.message.splitlines()
    assert lines[0] == "bad:"
    assert lines[50] == "  - 49"
    assert lines[-1] == last

"""Updates are clipped and noise is added as said: looked at in the numbers themselves."""

from __future__ import annotations

import math
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai4sdk.errors import EnvironmentFault
from ai4sdk.privacy.noise import clipped, gaussian, noised, read_secret

SECRET = bytes(range(32))


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e3))
def test_no_update_is_longer_than_the_norm_and_a_short_one_is_not_touched(size: float, norm: float) -> None:
    update = {"a": np.full((2, 3), size, np.float32), "b": np.array(-size, np.float32)}
    found, had = clipped(update, norm)
    length = math.sqrt(sum(float(np.square(array).sum()) for array in found.values()))
    assert length <= norm * (1 + 1e-9)
    if had <= norm:
        assert all(np.array_equal(found[name], update[name]) for name in update)
    else:
        assert length == pytest.approx(norm)
        assert np.allclose(found["a"] / found["b"], -1)


def test_noise_is_gaussian_with_the_deviation_that_was_said() -> None:
    count = 200_000
    noise = noised({"w": np.zeros(count)}, 2.5, SECRET, "round 1")["w"] / 2.5
    # Sums of so many numbers deviate by more than six of their own deviations less than once in 1e8 secrets.
    assert abs(noise.mean()) < 6 / math.sqrt(count)
    assert abs(noise.var() - 1) < 6 * math.sqrt(2 / count)
    for bound in (0.5, 1.0, 2.0, 3.0):
        share = math.erfc(bound / math.sqrt(2))
        assert abs((np.abs(noise) > bound).mean() - share) < 6 * math.sqrt(share / count)
    assert abs((noise[:-1] * noise[1:]).mean()) < 6 / math.sqrt(count)
    half = count // 2
    assert abs((noise[:half] * noise[half:]).mean()) < 6 / math.sqrt(half)


def test_it_is_the_same_for_the_same_question_only() -> None:
    first = gaussian(SECRET, "a", 1000)
    assert np.array_equal(first, gaussian(SECRET, "a", 1000))
    others = [gaussian(SECRET, "b", 1000), gaussian(b"\1" + SECRET[1:], "a", 1000)]
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 6 / math.sqrt(1000)
    layers = noised({"a": np.zeros(1000), "b": np.zeros(1000)}, 1.0, SECRET, "x")
    assert abs(np.corrcoef(layers["a"], layers["b"])[0, 1]) < 6 / math.sqrt(1000)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_there_are_as_many_numbers_as_asked_for(count: int) -> None:
    assert gaussian(SECRET, "a", count).shape == (count,)


def test_a_secret_is_drawn_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    first = read_secret(path)
    assert read_secret(path) == first
    assert first != read_secret(tmp_path / "other")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["secret"]


def test_a_damaged_secret_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(EnvironmentFault, match="does not hold a whole secret"):
        read_secret(tmp_path / "secret")

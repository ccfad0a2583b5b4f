from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai4sdk.errors import ConfigError, EnvironmentFault
from ai4sdk.privacy.accountant import Mechanism, epsilon_of, mechanism_of, noise_for, promise
from ai4sdk.spec.privacy import Privacy

needs_engine = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('dp_accounting')")


def dp_sgd(noise: float, batch: int, samples: int) -> Mechanism:
    return Mechanism("record", noise, "poisson", batch, samples)


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Return the exact delta of Gaussian noise of deviation 1/mu (B. Balle, Y. Wang, https://arxiv.org/abs/1805.06530)."""

    def below(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    return below(mu / 2 - epsilon / mu) - math.exp(epsilon) * below(-mu / 2 - epsilon / mu)


@needs_engine
def test_epsilon_is_that_of_the_prv_accountant() -> None:
    """The example of prv-accountant's README; bounds as its version 0.2.0 computes them with eps_error=0.01."""
    assert 1.9939 < epsilon_of([(dp_sgd(0.8, 5, 1000), 1000)], 1e-6) < 2.0143
    assert epsilon_of([(dp_sgd(0.8, 5, 1000), 1000)], 1e-6) == pytest.approx(2.00411, abs=2e-4)
    assert epsilon_of([(dp_sgd(1.5, 4, 100), 2250)], 1e-5) == pytest.approx(6.76878, abs=1e-3)


@needs_engine
def test_epsilon_is_that_of_opacus() -> None:
    """Figures of opacus/tests/accountants_test.py, whose Rényi accountant looks at slightly other orders."""
    assert epsilon_of([(dp_sgd(1.5, 4, 100), 2250)], 1e-5, "rdp") == pytest.approx(7.32911117143, rel=1e-3)
    assert noise_for(dp_sgd(1.0, 4, 100), 2250, 8.0, 1e-5, "rdp") == pytest.approx(1.416, rel=2e-3)
    assert noise_for(dp_sgd(1.0, 4, 100), 2000, 8.0, 1e-5, "rdp") == pytest.approx(1.3562, rel=2e-3)


@needs_engine
def test_epsilon_is_that_of_the_engines_own_tests() -> None:
    """Three steps have delta 0.15594 at epsilon 1 in dp_accounting's pld_privacy_accountant_test.py."""
    assert epsilon_of([(dp_sgd(0.5, 1, 5), 3)], 0.15594) == pytest.approx(1, abs=1e-3)


@needs_engine
def test_epsilon_is_no_more_than_the_first_accountants_found() -> None:
    """Moments accountants, whose way from moments to delta was looser, as published.

    M. Abadi and others: Deep Learning with Differential Privacy, https://arxiv.org/abs/1607.00133, section 5.1; Z. Bu,
    J. Dong, Q. Long, W. Su: Deep Learning with Gaussian Differential Privacy, Harvard Data Science Review 2020, figure 4.
    """
    assert 0.8 * 1.26 < epsilon_of([(dp_sgd(4.0, 1, 100), 10000)], 1e-5, "rdp") < 1.26
    assert 0.8 * 1.34 < epsilon_of([(dp_sgd(1.3, 256, 60000), 20 * 60000 // 256)], 1e-5, "rdp") < 1.34


@needs_engine
@settings(deadline=None, max_examples=25)
@given(st.floats(0.5, 50), st.integers(1, 200), st.sampled_from([1e-3, 1e-5, 1e-9]))
def test_without_sampling_epsilon_is_exact(noise: float, rounds: int, delta: float) -> None:
    mechanism = Mechanism("central", noise)
    mu = math.sqrt(rounds) / noise
    found = epsilon_of([(mechanism, rounds)], delta)
    bound = epsilon_of([(mechanism, rounds)], delta, "rdp")
    assert 0 < found <= bound <= max(1.4 * found, found + 0.1)
    if found < 200:
        assert gaussian_delta(found, mu) <= delta * (1 + 1e-6)
        assert gaussian_delta(found * 0.995 - 1e-5, mu) > delta


@needs_engine
def test_rounds_of_different_noise_are_composed() -> None:
    """Two kinds of Gaussian noise are together one with the sum of their 1/variance."""
    releases = [(Mechanism("central", 10.0), 50), (Mechanism("central", 5.0), 50), (Mechanism("central", 1.0), 0)]
    mu = math.sqrt(50 / 100 + 50 / 25)
    assert gaussian_delta(epsilon_of(releases, 1e-6), mu) == pytest.approx(1e-6, rel=0.02)
    assert epsilon_of([], 1e-6) == 0
    step = dp_sgd(1.0, 10, 100)
    assert epsilon_of([(step, 3), (step, 4)], 1e-5) == pytest.approx(epsilon_of([(step, 7)], 1e-5), rel=1e-2)


@needs_engine
@settings(deadline=None, max_examples=10)
@given(st.floats(0.6, 8), st.integers(1, 60), st.integers(1, 500))
def test_the_renyi_bound_is_the_smallest_over_the_orders(noise: float, percent: int, steps: int) -> None:
    """The bound as the paper of Mironov, Talwar and Zhang writes it, section 3.3, and theorem 21 of Balle and others
    (https://arxiv.org/abs/1905.09982) to come to delta."""
    rate, delta = percent / 100, 1e-5
    bounds = []
    for order in range(2, 64):
        terms = [
            math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
            + (order - k) * math.log1p(-rate) + k * math.log(rate) + k * (k - 1) / (2 * noise**2)
            for k in range(order + 1)
        ]  # fmt: skip
        largest = max(terms)
        moment = largest + math.log(math.fsum(math.exp(term - largest) for term in terms))
        renyi = steps * moment / (order - 1)
        bounds.append(renyi + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))
    found = epsilon_of([(dp_sgd(noise, percent, 100), steps)], delta, "rdp")
    assert found <= min(bounds) * (1 + 1e-9)
    if 9 < bounds.index(min(bounds)) < 60:
        assert found == pytest.approx(min(bounds), rel=1e-6)


@needs_engine
@settings(deadline=None, max_examples=8)
@given(st.floats(0.5, 5), st.integers(1, 50), st.integers(1, 100))
def test_more_noise_fewer_steps_and_smaller_samples_spend_less(noise: float, percent: int, steps: int) -> None:
    def spends(noise: float, percent: int, steps: int) -> float:
        return epsilon_of([(dp_sgd(noise, percent, 100), steps)], 1e-5, "rdp")

    here = spends(noise, percent, steps)
    assert spends(noise * 1.5, percent, steps) < here < spends(noise, percent, steps + 5)
    assert here < spends(noise, percent + 10, steps)


@needs_engine
def test_against_the_server_noise_counts_half() -> None:
    local = epsilon_of([(Mechanism("local", 2.0), 10)], 1e-5)
    assert local == epsilon_of([(Mechanism("central", 1.0), 10)], 1e-5)


@needs_engine
def test_a_fixed_number_promises_less_than_poisson_and_never_less_than_no_sampling() -> None:
    for noise, sampled, population in ((4.0, 1, 1000), (3.0, 2, 5)):
        fixed = epsilon_of([(Mechanism("central", noise, "fixed", sampled, population), 20)], 1e-5)
        assert fixed > epsilon_of([(Mechanism("central", noise, "poisson", sampled, population), 20)], 1e-5)
        assert fixed <= epsilon_of([(Mechanism("local", noise), 20)], 1e-5)


@needs_engine
def test_what_differs_in_unit_or_neighbours_is_not_composed() -> None:
    site = Mechanism("central", 1.0)
    for other in (Mechanism("record", 1.0), Mechanism("local", 1.0), Mechanism("central", 1.0, "fixed", 1, 5)):
        with pytest.raises(ValueError, match="cannot be composed"):
            epsilon_of([(site, 1), (other, 1)], 1e-5)


def keeps_hardly_more_than_the_budget(mechanism: Mechanism, rounds: int, budget: float) -> bool:
    noise = noise_for(mechanism, rounds, budget, 1e-5)
    spent, with_less = (
        epsilon_of([(replace(mechanism, noise_multiplier=noise * factor), rounds)], 1e-5) for factor in (1, 0.997)
    )
    return spent <= budget < with_less


@needs_engine
@settings(deadline=None, max_examples=8)
@given(st.floats(0.05, 30), st.integers(1, 100))
def test_noise_for_a_budget_keeps_it_and_is_hardly_more_than_needed(budget: float, rounds: int) -> None:
    assert keeps_hardly_more_than_the_budget(Mechanism("central", 1.0), rounds, budget)


@needs_engine
def test_noise_is_found_for_every_way_of_sampling() -> None:
    assert keeps_hardly_more_than_the_budget(dp_sgd(1.0, 32, 1000), 300, 3.0)
    assert keeps_hardly_more_than_the_budget(Mechanism("central", 1.0, "fixed", 1, 100), 20, 1.0)


@needs_engine
def test_a_budget_that_no_noise_keeps_is_refused() -> None:
    with pytest.raises(ConfigError, match="no noise keeps 1000 rounds"):
        noise_for(Mechanism("central", 1.0), 1000, 1e-9, 1e-9)


@needs_engine
def test_next_to_no_noise_is_no_privacy() -> None:
    assert epsilon_of([(Mechanism("central", 0.01), 100)], 1e-5) > 1000


def test_the_section_says_which_mechanism() -> None:
    found = mechanism_of(Privacy(mode="record", noise_multiplier=1.1), 32, 1000)
    assert found == Mechanism("record", 1.1, "poisson", 32, 1000)
    assert (found.unit, found.replaces) == ("record", False)
    assert mechanism_of(Privacy(mode="central", epsilon=8.0), 3, 5) == Mechanism("central", 1.0, "none", 3, 5)
    assert Mechanism(**found.to_dict()) == found


@pytest.mark.parametrize(("noise", "sampled"), [(0.0, 1), (-1.0, 1), (1.0, 0), (1.0, 6)])
def test_nonsense_is_no_mechanism(noise: float, sampled: int) -> None:
    with pytest.raises(ValueError, match=r"cannot be sampled|must be above 0"):
        Mechanism("central", noise, "none", sampled, 5)


def test_the_promise_names_what_is_protected_and_what_it_rests_on() -> None:
    told = " ".join(promise(Mechanism("central", 1.0, "none", 3, 5), 2.0, 1e-5))
    assert "a whole site" in told
    assert "7.39 times as likely as if it were left out" in told
    assert "server sees every update" in told
    record = " ".join(promise(Mechanism("record", 1.0, "poisson", 32, 10**6), 2.0, 1e-5))
    assert "one record of a site" in record
    assert "not about a site" in record
    assert "chosen by itself with the same chance" in record
    assert "delta is not below 1/1000000" in record
    local = " ".join(promise(Mechanism("local", 1.0), 25.0, 1e-5))
    assert "practically no privacy" in local


def test_without_the_engine_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(EnvironmentFault, match="needs the package dp_accounting") as caught:
        epsilon_of([(Mechanism("central", 1.0), 1)], 1e-5)
    assert caught.value.hint == "pip install 'ai4sdk[privacy]'"

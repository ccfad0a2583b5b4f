"""Tests agree with scipy, never find too much, and find what is there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ai4sdk.drift.compare import (
    compare,
    compare_missing,
    holm,
    homogeneity,
    kolmogorov_smirnov,
    stability_index,
    total_variation,
)
from ai4sdk.drift.sketch import sketch

COUNTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=12)


def rejections(make, alpha, rounds, seed=0):
    """Count how often two samples of one distribution are told apart."""
    generator = np.random.default_rng(seed)
    found = 0
    for _ in range(rounds):
        old, new = make(generator)
        found += compare(sketch(old), new).p < alpha
    return found


def not_more_than(alpha, rounds):
    """Return a count that a test of that level exceeds once in 10,000 times."""
    return stats.binom.ppf(1 - 1e-4, rounds, alpha)


def test_a_distance_of_all_values_has_scipys_p():
    generator = np.random.default_rng(3)
    for n, m in ((20, 30), (100, 40), (3000, 500)):
        old, new = generator.normal(size=n), generator.normal(0.3, 1, size=m)
        edges = np.sort(np.concatenate([old, new]))
        counted = [np.bincount(np.searchsorted(edges, part), minlength=len(edges)) for part in (old, new)]
        distance, p = kolmogorov_smirnov(*counted)
        expected = stats.ks_2samp(old, new, method="exact" if n * m < 5e4 else "asymp")
        assert distance == pytest.approx(expected.statistic)
        assert p == pytest.approx(expected.pvalue, rel=1e-6)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.lists(st.integers(-5, 5), min_size=1, max_size=60))
def test_a_summary_never_makes_a_difference_of_numbers_larger(old, new):
    old, new = np.array(old) + 0.25 * np.arange(len(old)), np.array(new) + 0.25 * np.arange(len(new))
    known = sketch(old)
    if known.kind == "bins":
        found, whole = compare(known, new), stats.ks_2samp(old, new, method="auto")
        assert found.distance <= whole.statistic + 1e-12
        assert found.p >= whole.pvalue - 1e-9


@given(COUNTS)
@settings(deadline=None)
def test_the_test_of_counts_agrees_with_scipy(pairs):
    before, after = np.array(pairs).T
    p = homogeneity(before, after, least=0.01)
    used = (before + after) > 0
    if used.sum() < 2 or not before.any() or not after.any():
        assert p == 1.0
    elif used.sum() == 2:
        assert p == pytest.approx(stats.fisher_exact(np.array([before, after])[:, used]).pvalue)
    else:
        found = stats.chi2_contingency(np.array([before, after])[:, used])
        if found.expected_freq.min() >= 5 and found.pvalue > 0.1:
            assert p == pytest.approx(found.pvalue)
        elif found.expected_freq.min() >= 5:
            assert p < 0.3  # drawn, so near it


def test_drawn_tables_agree_with_scipys_permutations():
    before, after = np.array([30, 4, 2, 1, 0]), np.array([9, 3, 3, 0, 2])
    labels = np.repeat(np.arange(5), before + after)

    def statistic(which):
        table = np.array([np.bincount(labels[which == side], minlength=5) for side in (0, 1)])
        return stats.chi2_contingency(table).statistic

    generator = np.random.default_rng(0)
    sides = np.concatenate([np.repeat([0, 1], pair) for pair in zip(before, after, strict=True)])
    found = statistic(sides)
    permuted = np.mean([statistic(generator.permutation(sides)) >= found - 1e-9 for _ in range(4000)])
    assert homogeneity(before, after, least=1e-4) == pytest.approx(permuted, abs=0.02)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda g: (g.normal(size=400), g.normal(size=100)), id="normal"),
        pytest.param(lambda g: (g.normal(size=40), g.normal(size=12)), id="few samples"),
        pytest.param(lambda g: (np.round(g.exponential(size=400), 1), np.round(g.exponential(size=90), 1)), id="ties"),
        pytest.param(
            lambda g: (g.integers(0, 9, 300).astype(float), g.integers(0, 9, 60).astype(float)), id="few values"
        ),
        pytest.param(
            lambda g: (g.poisson(0.05, 300).astype(float), g.poisson(0.05, 80).astype(float)), id="rare values"
        ),
        pytest.param(lambda g: (list(g.choice(list("abcdef"), 300)), list(g.choice(list("abcdef"), 20))), id="texts"),
        pytest.param(
            lambda g: ([str(z) for z in g.zipf(1.5, 150)], [str(z) for z in g.zipf(1.5, 60)]), id="many rare texts"
        ),
        pytest.param(
            lambda g: ([str(z) for z in g.integers(0, 3000, 2000)], [str(z) for z in g.integers(0, 3000, 300)]),
            id="hashed texts, most of them unseen",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_data_of_one_distribution_are_seldom_told_apart(make):
    rounds = 400
    for alpha in (0.05, 0.01):
        assert rejections(make, alpha, rounds) <= not_more_than(alpha, rounds)


def test_a_mean_shape_or_share_that_changes_is_found():
    generator = np.random.default_rng(0)
    known = sketch(generator.normal(size=2000))
    assert compare(known, generator.normal(0.5, 1, 300)).p < 1e-6
    assert compare(known, generator.normal(0, 2, 300)).p < 1e-6
    texts = sketch(list(generator.choice(["a", "b"], 500)))
    assert compare(texts, list(generator.choice(["a", "b"], 200, p=[0.8, 0.2]))).p < 1e-6
    assert compare(texts, list(generator.choice(["a", "b", "new"], 100))).p <= 1e-4


def test_a_constant_that_stays_is_none_and_one_that_moves_is_found():
    known = sketch(np.full(200, 3.0))
    assert compare(known, np.full(50, 3.0)).p == 1.0
    assert compare(known, np.full(50, 3.1)).p < 1e-6
    assert compare(known, np.full(1, 3.0)).p == 1.0


def test_nothing_on_one_side_is_no_test():
    assert compare(sketch(np.array([np.nan])), np.array([1.0])).test == "none"
    assert compare(sketch(np.array([1.0])), np.array([np.nan])).test == "none"
    assert compare(sketch([]), ["a"]).p == 1.0


def test_missing_values_are_a_test_of_their_own():
    half = np.where(np.arange(200) % 2, np.nan, 1.0)
    whole = np.full(200, 1.0)
    assert compare_missing(sketch(whole), whole) is None
    assert compare_missing(sketch(whole), half).p < 1e-9
    assert compare_missing(sketch(half), half).p == pytest.approx(1.0)
    assert compare_missing(sketch(["a", None]), ["a", None]).p == pytest.approx(1.0)
    assert compare(sketch(whole), half).p == 1.0


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_the_order_and_never_lowers(p_values):
    adjusted = holm(p_values)
    assert all(after >= before - 1e-15 and after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    for one in range(len(p_values)):
        for other in range(len(p_values)):
            if p_values[one] < p_values[other]:
                assert adjusted[one] <= adjusted[other]


def test_holm_is_holms():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(COUNTS)
def test_effect_sizes_stay_in_their_bounds(pairs):
    before, after = np.array(pairs).T
    if before.any() and after.any():
        assert 0 <= total_variation(before, after) <= 1
        assert np.isfinite(stability_index(before, after))
        assert stability_index(before, after) >= 0
        assert stability_index(before, before) == pytest.approx(0)


def test_the_same_gives_the_same_every_time():
    before, after = np.array([30, 4, 2, 1, 0]), np.array([3, 3, 3, 0, 2])
    assert homogeneity(before, after) == homogeneity(before, after)

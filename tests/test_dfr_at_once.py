"""Deep feature reweighting's regressions at once, as on a GPU, against scikit-learn's solver at a tight tolerance."""

import numpy as np
import pytest
import torch
from mmc_bench_plugins.dfr import batched
from mmc_bench_plugins.dfr import method as dfr
from sklearn.linear_model import LogisticRegression

STRENGTHS = (0.3, 0.1, 0.03, 0.003)


@pytest.fixture
def problem():
    """Features (90, 100), more than the 64 that are first tried at once, in correlated columns; labels of 3 classes."""
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    inputs = (random.normal(size=(90, 30)) + 0.5 * np.eye(30)[labels]) @ random.normal(size=(30, 100))
    inputs += random.normal(size=(90, 100))
    return (inputs - inputs.mean(0)) / inputs.std(0), labels


def at_once(inputs, labels, fits, num_classes=3):
    return dfr.fitted_at_once(inputs, labels, num_classes, fits, np.random.default_rng(0), torch.device("cpu"))


def objective(row, inputs, signs, strength):
    losses = np.logaddexp(0, -signs * (inputs @ row[:-1] + row[-1]))
    return abs(row).sum() + strength * losses.sum()


def test_the_minimum_is_that_of_scikit_learn(problem, monkeypatch):
    inputs, labels = problem
    monkeypatch.delattr(dfr, "one_against_rest")  # none is left to it
    fits = [(dfr.balanced_subset(labels[:80], np.random.default_rng(i)), c) for i, c in enumerate(STRENGTHS)]
    sparse = []
    for (subset, strength), rows in zip(fits, at_once(inputs, labels, fits), strict=True):
        for k, row in enumerate(rows):
            x, signs = inputs[subset], np.where(labels[subset] == k, 1.0, -1.0)
            exact = LogisticRegression(l1_ratio=1.0, C=strength, solver="liblinear", tol=1e-10, max_iter=20_000)
            exact.fit(x, signs)
            expected = np.append(exact.coef_[0], exact.intercept_[0])
            assert row == pytest.approx(expected, rel=0, abs=1e-6)
            assert objective(row, x, signs, strength) <= objective(expected, x, signs, strength) * (1 + 1e-12)
            sparse.append((row != 0).sum())
    assert min(sparse) == 0


def test_where_memory_runs_out_fewer_are_solved_at_once(problem, monkeypatch):
    def in_little_memory(design, strengths):
        held.append(len(design))
        if len(design) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return solve(design, strengths)

    inputs, labels = problem
    fits = [(np.arange(90), strength) for strength in STRENGTHS[:2]]
    whole = at_once(inputs, labels, fits)
    held, solve = [], batched._by_working_sets
    monkeypatch.setattr(batched, "_by_working_sets", in_little_memory)
    assert np.allclose(whole, at_once(inputs, labels, fits), rtol=0, atol=1e-9) and held == [6, 3, 3]
    monkeypatch.setattr(batched, "_by_working_sets", lambda *_: in_little_memory(torch.zeros(4), None))
    with pytest.raises(torch.OutOfMemoryError):
        at_once(inputs, labels, fits)


def test_no_direction_leads_down_from_a_minimum_of_many_numbers(problem):
    inputs, labels = problem
    design = np.column_stack([inputs, np.ones(90)])
    rows = at_once(inputs, labels, [(np.arange(90), 3.0)])[0]
    for k, row in enumerate(rows):
        signs = np.where(labels == k, 1.0, -1.0)
        gradient = -3.0 * design.T @ (signs / (1 + np.exp(signs * (design @ row))))
        assert gradient[row != 0] == pytest.approx(-np.sign(row[row != 0]), abs=1e-8)
        assert (abs(gradient[row == 0]) <= 1 + 1e-8).all()
    assert (rows != 0).sum(1).max() > 32  # more than one set of numbers is tried


def test_autocast_does_not_round_it(problem):
    inputs, labels = problem
    fits = [(np.arange(90), 0.3)]
    expected = at_once(inputs, labels, fits)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (at_once(inputs, labels, fits)[0] == expected).all()


def test_problems_that_do_not_fit_together_are_solved_in_parts(problem, monkeypatch):
    inputs, labels = problem
    fits = [(np.arange(90), c) for c in STRENGTHS]
    expected = np.stack(at_once(inputs, labels, fits))
    monkeypatch.setattr(batched, "HELD", 5 * 90 * 101)
    assert np.stack(at_once(inputs, labels, fits)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("present", [[0, 2], [1]])
def test_classes_that_do_not_occur_and_a_single_class_are_as_one_by_one(problem, present):
    inputs, labels = problem
    subset = np.flatnonzero(np.isin(labels, present))
    rows = at_once(inputs, labels, [(subset, 0.3)])[0]
    expected = dfr.one_against_rest(inputs[subset], labels[subset], 3, 0.3, np.random.default_rng(0))
    assert rows == pytest.approx(expected, abs=0.01)
    absent = [k for k in range(3) if k not in present]
    assert (rows[absent] == expected[absent]).all()


def test_features_that_are_each_others_copies_have_a_minimum_too(problem):
    inputs, labels = problem
    inputs = np.column_stack([inputs[:, :40], inputs[:, :40], -inputs[:, :40]])
    for k, row in enumerate(at_once(inputs, labels, [(np.arange(90), 1.0)])[0]):
        signs = np.where(labels == k, 1.0, -1.0)
        other = LogisticRegression(l1_ratio=1.0, C=1.0, solver="liblinear", random_state=0).fit(inputs, signs)
        theirs = objective(np.append(other.coef_[0], other.intercept_[0]), inputs, signs, 1.0)
        assert objective(row, inputs, signs, 1.0) <= theirs


def test_what_is_not_solved_is_left_to_scikit_learn(problem, monkeypatch):
    inputs, labels = problem
    fits = [(np.arange(90), 1e-4), (np.arange(90), 0.3)]
    monkeypatch.setattr(batched, "STEPS", 3)
    rows = at_once(inputs, labels, fits)
    assert (rows[0] == 0).all()  # nothing to do: a minimum at once
    assert (rows[1] == dfr.one_against_rest(inputs, labels, 3, 0.3, np.random.default_rng(0))).all()


def test_features_that_are_not_numbers_are_refused_as_one_by_one(problem):
    inputs, labels = problem
    inputs[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        at_once(inputs, labels, [(np.arange(90), 0.3)])

"""Editing source: results are kept once equal numbers were shown, and no edit without that shows an old result."""

import json
import os
import subprocess
import sys

import pytest

from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.versions import PACKAGE, STAGES
from mmc_bench.running.session import DEFAULT_SUITE
from mmc_bench.suites.plan import make_plan
from mmc_bench.suites.suite import load_suite, suite_of
from mmc_bench.testing.golden import (
    FAILED,
    PACKAGES,
    first_difference,
    golden_suite,
    locked_things,
    tried_name,
    untried,
)

SUITE = """
datasets: [k-complex]
backbones: [two-layer]
methods: [cbft, llr]
cue_rates: [0.9]
seeds: [0]
threads: 1
data: {pretrain_images: 96, clean_images: 48, validation_images: 24}
pretrain: {epochs: 1, batch_size: 32, curve_images: 20}
connect: {points: 2}
parameters: {cbft: {epochs: 1}, llr: {epochs: 1}}
"""


class Checkout:
    """A copy of the source in a git repository of its own, and the command that runs it."""

    def __init__(self, root):
        self.root, self.path = root / "checkout", root / "path"
        self.root.mkdir()
        self.path.mkdir()
        (self.root / "suite.yaml").write_text(SUITE)
        subprocess.run(["cp", "-r", *(str(PACKAGE.parent / name) for name in PACKAGES), str(self.root)], check=True)
        for name, package in PACKAGES.items():
            (self.path / package).symlink_to(self.root / name, target_is_directory=True)
        for words in (["init", "-q"], ["add", "mmc_bench", "plugins", "benchmarks"], ["commit", "-qm", "Old"]):
            subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=self.root, check=True)

    def __call__(self, *words, code=0):
        environment = {**os.environ, "PYTHONPATH": str(self.path)}
        command = [sys.executable, "-m", "mmc_bench", *words]
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def computed(self):
        """Run the suite, and return the numbers of cells and of pretrainings that were computed."""
        words = ("run", "--suite", "suite.yaml", "--json", "--workers", "0", "--device", "cpu", "--precision", "fp32")
        text = self(*words)
        content = json.loads(text[text.index("{") : text.rindex("}") + 1])
        return content["computed"], content["pretrained"]

    def edit(self, file, old, new):
        content = (self.root / file).read_text()
        assert old in content
        (self.root / file).write_text(content.replace(old, new, 1))


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.mark.slow
def test_an_edit_that_changes_no_number_keeps_all_results_and_one_that_may_computes_its_own_anew(checkout):
    assert checkout.computed() == (2, 1)
    checkout.edit("mmc_bench/stages/score.py", '"""', '"""A remark. ')
    assert "stage score" in checkout("lock", "check", code=4)
    assert "are the same" in checkout("lock", "prove", "score")
    assert checkout.computed() == (0, 0)
    checkout.edit("plugins/cbft/method.py", "Field(0.01,", "Field(0.02,")
    assert checkout.computed() == (1, 0)
    version = STAGES["probe"].version
    checkout.edit("mmc_bench/results/versions.py", f'"probe": Stage({version}', f'"probe": Stage({version + 1}')
    assert checkout("lock", "prove", "probe") == f"stage probe: listed as the first source of version {version + 1}\n"


def test_the_first_number_that_differs_is_named():
    assert first_difference({"a": 1}, {"a": 1, "new": 3}) is None
    gone = "old is 2 in the old source, and not there in the new one"
    assert first_difference({"a": 1, "old": 2}, {"a": 1, "new": 3}) == gone
    failed = {"a cell: failed": "no memory"}
    assert first_difference({"a": 1, **failed}, {"a": 1, **failed}) is None
    with pytest.raises(UserError, match="the old source gives no number, so nothing is shown"):
        first_difference(failed, failed)
    assert first_difference({"a": 1, "b": 0.5}, {"a": 1, "b": 0.25}) == "b is 0.5 and 0.25"


@pytest.mark.slow
def test_small_cells_of_every_stage_and_plugin_make_a_plan():
    registry = Registry.discover()
    usual = load_suite(DEFAULT_SUITE, registry.suites)
    named = {f"{kind}s": list(getattr(usual, f"{kind}s")) for kind in ("dataset", "backbone", "method")}
    things = locked_things(registry)
    old = {(thing.kind, thing.name): (thing.version, thing.digest) for thing in things}
    plans = {}
    for thing in things:
        suite = golden_suite(thing, registry, named, old)
        assert suite.pop("probed", False) == (thing.label == "stage probe")
        del suite["usual"]
        plans[thing.label] = make_plan(suite_of(suite), registry)
        assert plans[thing.label].cells, thing.label
    tried = {cell.method.name for cell in plans["stage fine-tune"].cells}
    assert tried == {offer.spec.name for offer in registry.offers("method")}
    (cell,), (pair,) = plans["stage connect"].cells, plans["stage connect"].pairs
    assert cell.connect.paths == pair.connect.paths == ("linear", "permuted", "quadratic", "quadratic-nc")


def test_small_cells_try_everything_that_built_in_plugins_offer():
    for thing in locked_things(Registry.discover()):
        assert all(tried_name(offer) for offer in thing.offers), thing.label
        names = [f"cell set {tried_name(offer)} seed 0: metrics" for offer in thing.offers]
        assert untried(thing, names) == []
        assert untried(thing, [f"{name}{FAILED}" for name in names]) == [offer.spec.name for offer in thing.offers]

"""Pretrainings that begin with weights trained elsewhere, and weights that do not fit: said before anything runs."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

TINY = ("--backbone", "tiny-net", "--methods", "tiny-ft", "--seeds", 0)
STILL = ("--set", "pretrain.lr=1e-12", "--set", "pretrain.epochs=1")


@pytest.fixture
def weights(bench):
    """Return the weights of a pretrained tiny network, and a maker of files with these after a change."""
    assert bench.tiny(*TINY, "--results", "first").code == 0
    (file,) = (bench.folder / "first").rglob("*.safetensors")
    tensors = load_file(file)

    def saved(**changes):
        save_file(
            {name: value for name, value in {**tensors, **changes}.items() if value is not None}, "mine.safetensors"
        )
        return f"mine={bench.folder / 'mine.safetensors'}"

    return tensors, saved


def of_five_classes(tensors):
    return {name: torch.ones(5, *value.shape[1:]) for name, value in tensors.items() if name.startswith("head.")}


def pretrained_in(folder):
    (file,) = folder.rglob("*.safetensors")
    return load_file(file)


@pytest.mark.slow
def test_a_pretraining_begins_with_them(bench, weights):
    tensors, saved = weights
    result = bench.tiny(*TINY, *STILL, "--start-from", saved())
    assert result.code == 0 and "tiny-net (from mine)" in result.out
    found = pretrained_in(bench.folder / "results")
    for name, value in found.items():
        assert not value.is_floating_point() or "running" in name or torch.allclose(value, tensors[name])
    others = bench.tiny(*TINY, *STILL, "--results", "others")
    assert others.code == 0
    assert not torch.allclose(pretrained_in(bench.folder / "others")["head.weight"], found["head.weight"])


@pytest.mark.slow
def test_tables_show_the_rows_of_these_weights_alone(bench, weights):
    _, saved = weights
    for words in ((), ("--start-from", saved())):
        assert bench.tiny(*TINY, *STILL, *words).code == 0
    table = bench("table", "--start-from", saved(), "--backbone", "tiny-net", "--format", "json")
    assert {row["backbone"] for row in json.loads(table.out)} == {"tiny-net (from mine)"}


@pytest.mark.slow
def test_a_last_layer_of_other_classes_is_new_and_that_is_said(bench, weights):
    tensors, saved = weights
    file = saved(**of_five_classes(tensors))
    result = bench.tiny(*TINY, *STILL, "--start-from", file)
    assert result.code == 0 and "mine has 5 classes, the dataset 3: its last layer is new" in result.err
    found = pretrained_in(bench.folder / "results")
    assert found["head.weight"].shape == tensors["head.weight"].shape
    first = next(name for name in tensors if name.endswith("weight") and "head" not in name)
    assert torch.allclose(found[first], tensors[first])


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--checkpoint", "--start-from"])
@pytest.mark.parametrize("how", [(), ("--dry-run",)])
def test_weights_that_do_not_fit_are_said_before_anything_runs(bench, weights, option, how):
    tensors, saved = weights
    changes = {"head.bias": None} if option == "--start-from" else of_five_classes(tensors)
    result = bench.tiny(*TINY, *how, option, saved(**changes))
    sentence = "mine does not fit tiny-net: it lacks the weight 'head.bias': "
    if option == "--checkpoint":
        sentence = "mine has 5 classes, the dataset 3: --start-from, or start= in Python, begins a pretraining with its"
    assert result.code == 4 and result.err.count(sentence) == 1
    assert not [*(bench.folder / "results").rglob("*.json")]


@pytest.mark.slow
def test_a_pretraining_cannot_both_begin_with_weights_and_be_left_out(bench, weights):
    _, saved = weights
    result = bench.tiny(*TINY, "--start-from", saved(), "--checkpoint", saved())
    assert result.code == 4 and "a checkpoint takes the place of a pretraining" in result.err

"""NaN and infinity, wherever they come from: one cell's failure, in one sentence, and never a record."""

import json

import pytest
from pydantic import ValidationError

from mmc_bench.engines.worker import _sentence
from mmc_bench.results.metrics import Score

NOT_FINITE = {
    "inf-weight": "method inf-weight returned a model whose weight 'head.weight' is not finite",
    "nan-statistics": "method nan-statistics returned a model whose weight 'norm.running_mean' is not finite",
    "negative-variance": "on NC, the model's mean loss over 30 images is not finite (nan)",
    "cliff": "at t = 0.333333 of a path, on NC, the model's mean loss over 30 images is not finite (inf)",
}


def failures_of(result):
    """Return the error of each failed job by its last word."""
    assert result.code == 1 and "Traceback" not in result.err
    return {failure["cell"].split()[-1]: failure["error"] for failure in json.loads(result.out)["failures"]}


@pytest.mark.slow
def test_methods_that_diverge_fail_their_own_cells_with_a_sentence(bench):
    result = bench.tiny("--seeds", 0, "--methods", ",".join([*NOT_FINITE, "tiny-ft"]), "--json")
    failures = failures_of(result)
    assert {name: error[: len(NOT_FINITE[name])] for name, error in failures.items()} == NOT_FINITE
    cells = [json.loads(path.read_text()) for path in (bench.folder / "results" / "cells").glob("*.json")]
    assert [record["cell"]["method"]["name"] for record in cells if record.get("kind") == "cell"] == ["tiny-ft"]


@pytest.mark.slow
def test_a_pretraining_whose_last_step_spoils_the_weights_fails(bench):
    words = ["--set", "pretrain.epochs=1", "--set", "pretrain.batch_size=60"]
    result = bench.tiny("--seeds", 0, "--methods", "tiny-still", "--backbones", "root-net", "--json", *words)
    sentence = "pretraining made a model whose weight 'root' is not finite"
    assert set(failures_of(result).values()) == {sentence, f"its pretraining failed: {sentence}"}
    assert not list((bench.folder / "results" / "pretrained").glob("*.safetensors"))


def test_a_pretraining_that_diverges_fails(bench):
    result = bench.tiny("--seeds", 0, "--methods", "tiny-still", "--json", "--set", "pretrain.lr=1e30")
    assert all("the loss became" in error for error in failures_of(result).values())


def test_a_figure_that_no_record_takes_is_named_in_one_sentence():
    with pytest.raises(ValidationError) as caught:
        Score(accuracy=0.5, loss=float("nan"))
    expected = "the result is no valid record: Score: loss = nan: Input should be a finite number"
    assert _sentence(caught.value) == expected

"""``mmc-bench connect`` when memory runs out."""

import json

import pytest
import torch
from safetensors.torch import save_file
from test_connect_command import FAST, PLAIN, plain_weights

from mmc_bench.data.micro_batches import micro_batches
from mmc_bench.stages import checkpoint_pairs


@pytest.mark.slow
def test_connect_goes_on_in_less_memory_and_ends_with_a_sentence_when_it_runs_out_for_good(bench, monkeypatch):
    compare, enough = checkpoint_pairs.compare, 4

    def hungry(*arguments):
        if micro_batches() < enough:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 PiB")
        return compare(*arguments)

    monkeypatch.setattr(checkpoint_pairs, "compare", hungry)
    for seed, name in enumerate("ab"):
        save_file(plain_weights(seed), bench.folder / f"{name}.safetensors")
    words = ("connect", "a.safetensors", "b.safetensors", *PLAIN, "--paths", "linear", *FAST)
    done = bench(*words)
    assert done.code == 0, done.err
    assert [f"tried again in {parts} micro-batches" in done.err for parts in (2, 4, 8)] == [True, True, False]
    assert json.loads(done.out)["record"]["provenance"]["micro_batches"] == 4
    enough = 1000
    failed = bench(*words, "--seed", 5)
    assert failed.code == 1 and failed.err.splitlines()[-1] == (
        "mmc-bench: out of memory, even with batches in 16 parts (CUDA out of memory. Tried to allocate 2 PiB): "
        "use fewer workers, a smaller backbone or a smaller batch_size"
    )

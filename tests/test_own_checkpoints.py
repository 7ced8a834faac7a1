"""Models that somebody else trained: scored, repaired, connected, and in tables under their own name."""

import json
import re
import subprocess
import sys

import pytest
import torch
import torchvision
from safetensors.torch import save_file

import mmc_bench
from mmc_bench import UserError
from mmc_bench.leaderboard.record_checks import problems_of_pretraining
from mmc_bench.results.store import Store
from mmc_bench.results.weights import decoded_weights
from mmc_bench.stages.checkpoints import Source, kept_checkpoint, locate, own_weights, read_own
from mmc_bench.stages.own_weights import fill

TRAINING = """
import torch, torchvision
from sklearn.datasets import load_digits

torch.manual_seed(0)
torch.set_num_threads(1)
digits = load_digits()
images = torch.from_numpy(digits.images).float()[:640, None] / 8 - 1
images = images.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat(1, 3, 1, 1)  # as the benchmark enlarges them
labels = torch.from_numpy(digits.target)[:640]
model = torchvision.models.resnet18(num_classes=10)
optimizer = torch.optim.SGD(model.parameters(), lr=.02, momentum=.9)
for rows in torch.arange(640).repeat(4).split(64):
    loss = torch.nn.functional.cross_entropy(model(images[rows]), labels[rows])
    optimizer.zero_grad(), loss.backward(), optimizer.step()
torch.save(model.state_dict(), "mine.pt")
"""

SMALL = {"timm/resnet18.cifar_stem": False, "data.test_images": 100, "connect.batchnorm_images": 50}
QUICKLY = {**SMALL, "ft-medium.epochs": 1, "connect.points": 3}
NETWORK = ("--backbone", "timm/resnet18", "--precision", "fp32")
NETWORK += tuple(word for name, value in SMALL.items() for word in ("--set", f"{name}={json.dumps(value)}"))


@pytest.fixture(scope="module")
def mine(made_once):
    def make(folder):
        subprocess.run([sys.executable, "-c", TRAINING], cwd=folder, check=True)

    return made_once("own-checkpoint", make) / "mine.pt"


@pytest.fixture
def untrained(tmp_path):
    """Return a file with random weights of the same network."""
    torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), tmp_path / "untrained.pt")
    return tmp_path / "untrained.pt"


@pytest.mark.slow
def test_a_torch_script_s_network_is_scored_repaired_and_connected(mine, tmp_path):
    def run():
        return mmc_bench.run(
            checkpoint=mine,
            backbones="timm/resnet18",
            methods=["llr", "ft-medium"],
            datasets="digits-box",
            seeds=[0],
            set=QUICKLY,
            results=tmp_path / "results",
            workers=0,
            precision="fp32",  # its last maps have one pixel
        )

    results = run()
    assert not results.failures
    (before,) = results.pretrained
    kept = decoded_weights(Store(tmp_path / "results").weights_file(before.pretraining).read_bytes())
    weights = torch.load(mine, weights_only=True)
    assert kept.tensors.keys() == weights.keys()
    assert all(torch.equal(kept.tensors[name], weights[name]) for name in weights)
    assert before.curve == () and before.budget is None
    assert before.metrics.NC.accuracy > 0.5  # its images are those that it was trained on
    assert {cell.cell.method.name for cell in results.cells} == {"ft-medium", "llr"}
    assert all(cell.pretrained_sha256 == before.weights_sha256 and "linear" in cell.paths for cell in results.cells)
    assert set(results.to_frame()["backbone"]) == {"timm/resnet18 (mine)"}
    assert "timm/resnet18 (mine)" in str(results.table())
    assert any("trained elsewhere" in problem for problem in problems_of_pretraining(before, None))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")}
    run()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")} == files


@pytest.mark.slow
def test_tables_show_the_checkpoint_s_rows_alone(bench, mine, tmp_path):
    save_file({**torch.load(mine, weights_only=True), "fc.bias": torch.zeros(10)}, tmp_path / "other.safetensors")
    for file in (mine, tmp_path / "other.safetensors"):
        assert bench("score", file, "--datasets", "digits-box", "--seeds", 0, *NETWORK).code == 0
    table = bench("table", "--checkpoint", mine, "--backbone", "timm/resnet18", "--format", "json")
    assert [row["backbone"] for row in json.loads(table.out)] == ["timm/resnet18 (mine)"]


@pytest.mark.slow
def test_score_is_a_run_without_methods(bench, mine):
    words = ("--datasets", "digits-box", "--seeds", 3, *NETWORK, "--json")
    first, again = (bench("score", f"theirs={mine}", *words) for _ in range(2))
    assert first.code == again.code == 0, first.err
    (row,) = json.loads(first.out)["rows"]
    assert (row["backbone"], row["method"], row["seeds"]) == ("timm/resnet18 (theirs)", "pretrained", [3])
    assert json.loads(again.out)["rows"] == [row] and "1 of 1 experiment to score theirs in" in first.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Say it with --backbone NAME"),
        ((*NETWORK, "--precision", "bf16"), "strides over feature maps of one pixel"),
        (("--backbone", "timm/resnet18"), "its weight 'conv1.weight' has shape (64, 3, 7, 7), not (64, 3, 3, 3)"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(bench, untrained, words, sentence):
    result = bench("score", untrained, "--seeds", 0, *words)
    assert result.code == (1 if "bf16" in words else 4)  # what arithmetic a worker has is known there alone
    assert sentence in result.err and "Traceback" not in result.err


@pytest.mark.slow
def test_a_missing_weight_comes_with_the_nearest_name(bench, untrained, tmp_path):
    weights = torch.load(untrained, weights_only=True)
    weights["head.weight"] = weights.pop("fc.weight")
    save_file(weights, tmp_path / "renamed.safetensors")
    result = bench("score", tmp_path / "renamed.safetensors", "--seeds", 0, *NETWORK)
    assert result.code == 4
    assert "renamed does not fit timm/resnet18: it lacks the weight 'fc.weight': " in result.err


def read(path):
    own, found = own_weights(str(path))
    return read_own(found, own)


@pytest.mark.parametrize(
    "around", [lambda w: w, lambda w: {"epoch": 3, "state_dict": w}, lambda w: {"model": {"state_dict": w}}]
)
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod.", "model."])
def test_weights_are_found_where_training_scripts_put_them(tmp_path, tiny_net, around, prefix):
    trained, other = tiny_net(1), tiny_net(2)
    torch.save(around({prefix + name: value for name, value in trained.state_dict().items()}), tmp_path / "a.pt")
    filled = fill(other, read(tmp_path / "a.pt"), "a", "tiny")
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in filled.state_dict().items())


def test_counts_of_batches_may_be_missing(tiny_net):
    weights = {name: v for name, v in tiny_net(1).state_dict().items() if not name.endswith("num_batches_tracked")}
    assert torch.equal(fill(tiny_net(2), weights, "a", "tiny").stem.weight, weights["stem.weight"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.to(torch.complex64), "is complex, and must be a dense tensor of real numbers"),
        (lambda w: w.to_sparse(), "is sparse"),
        (lambda w: w.to("meta"), "is without values"),
    ],
)
def test_weights_that_are_no_dense_real_numbers_are_refused(tmp_path, change, sentence):
    weights = {"a": torch.ones(3), "b": change(torch.ones(3, 2))}
    torch.save(weights, tmp_path / "a.pt")
    for take in (lambda: read(tmp_path / "a.pt"), lambda: kept_checkpoint(weights, tmp_path)):
        with pytest.raises(UserError, match=f"its weight 'b' {sentence}"):
            take()


def test_a_weight_that_the_network_s_type_cannot_hold_is_refused(tiny_net):
    weights = tiny_net(1).state_dict()
    weights["stem.weight"] = torch.full_like(weights["stem.weight"], 1e300)
    with pytest.raises(UserError, match=r"its weight 'stem\.weight' is not finite everywhere"):
        fill(tiny_net(2).float(), weights, "a", "tiny")


def test_tied_weights_are_read_and_kept(tmp_path):
    shared = torch.ones(4)
    torch.save({"a": shared, "b": shared}, tmp_path / "a.pt")
    assert read(tmp_path / "a.pt")["b"].tolist() == [1] * 4
    assert Source("a", tmp_path / "a.pt").read()[1].keys() == {"a", "b"}
    assert kept_checkpoint({"state_dict": {"a": shared, "b": shared}, "epoch": 3}, tmp_path).startswith("weights=")
    with pytest.raises(UserError, match="holds no state_dict"):
        kept_checkpoint({}, tmp_path)


def test_a_safetensors_file_is_told_from_a_pickle_by_its_content(tmp_path):
    for length in range(40):  # the header's length makes the first byte: of some files the same as a pickle's
        name = "w" * (length + 1)
        save_file({name: torch.ones(2)}, tmp_path / "a.safetensors")
        assert read(tmp_path / "a.safetensors").keys() == {name}


def test_a_file_s_own_name_may_have_equals_signs(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "epoch=9-step=100.ckpt")
    file = tmp_path / "epoch=9-step=100.ckpt"
    assert own_weights(str(file))[1] == own_weights(f"mine={file}")[1] == file
    assert (own_weights(str(file))[0].name, own_weights(f"mine={file}")[0].name) == ("epoch=9-step=100", "mine")


def test_a_network_and_its_weights_may_be_given_in_python(tmp_path):
    from mmc_bench.running.session import Session

    network = torch.nn.Linear(2, 3)
    for given, name in ((network, "Linear"), (network.state_dict(), "weights")):
        session = Session.of(checkpoint=given, lists={"backbones": "resnet8"}, results=tmp_path)
        own, path = session.own_weights
        assert own.name == name and torch.equal(read_own(path, own)["weight"], network.weight)
    with pytest.raises(UserError, match="checkpoint is a int: give a file"):
        Session.of(checkpoint=3, results=tmp_path)


def test_safetensors_are_read_whatever_the_file_is_called(tmp_path):
    save_file({"w": torch.arange(3.0)}, tmp_path / "weights.bin")
    assert read(tmp_path / "weights.bin")["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (torch.nn.Linear(2, 2), r"holds more than tensors, or is damaged .*: save model\.state_dict\(\)"),
        ({"epoch": 3, "optimizer": {}}, r"holds no state_dict among epoch, optimizer"),
        ([torch.ones(1)], r"holds no state_dict: save"),
        ({}, r"holds no state_dict: save"),
        ({0: torch.ones(1)}, r"holds no state_dict among 0: save"),
        (b"not weights", "is neither a safetensors file nor one of torch.save"),
        (b"", "is neither a safetensors file nor one of torch.save"),
        (b"PK\x03\x04 cut off", "holds more than tensors, or is damaged"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path, content, sentence):
    if isinstance(content, bytes):
        (tmp_path / "a.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=sentence):
        read(tmp_path / "a.pt")


def test_memory_that_runs_out_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    def load(*_, **__):
        raise MemoryError

    torch.save({"w": torch.ones(1)}, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        read(tmp_path / "a.pt")


def test_a_file_that_changes_after_planning_is_refused(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pt")
    own, path = own_weights(str(tmp_path / "a.pt"))
    torch.save({"w": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="is no longer the file that it was when the run began"):
        read_own(path, own)


@pytest.mark.slow
def test_a_suite_that_compares_models_takes_no_checkpoint(bench, untrained):
    result = bench("run", "--suite", "fig4", "--checkpoint", untrained, "--backbone", "resnet8", "--dry-run")
    assert result.code == 4 and "compares pretrained models with one another: it takes no checkpoint" in result.err


@pytest.mark.parametrize("folder", ["pretrained", "fine-tuned"])
def test_the_name_of_a_file_of_weights_is_no_key_and_is_answered_with_the_file(tmp_path, folder):
    file = tmp_path / folder / f"{'abcdef12' * 8}.safetensors"
    file.parent.mkdir()
    file.touch()
    advice = f"but a file of weights does: give it, {file}, with --backbone and --dataset"
    with pytest.raises(UserError, match=re.escape(advice)):
        locate("abcdef12", Store(tmp_path))
    with pytest.raises(UserError, match=r"has a key that begins with abcdef13$"):
        locate("abcdef13", Store(tmp_path))

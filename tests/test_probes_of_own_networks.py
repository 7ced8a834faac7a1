"""What became of the cue in networks of one's own: classes, trained networks, and weights to begin with."""

import pytest
from conftest import PLUGINS
from torch import nn
from torch.nn import functional as F

import mmc_bench
from mmc_bench.errors import UserError
from mmc_bench.plugin.in_memory import method_offer
from mmc_bench.plugin.in_memory_backbones import backbone_offer
from mmc_bench.results.store import Store

QUICKLY = {"progress": False, "precision": "fp32", "plugins_dir": PLUGINS}
SMALL = {"pretrain.epochs": 1, "connect.points": 2, "data.clean_images": 12, "data.validation_images": 12}


class MyNet(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self, num_classes):
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 4, 3, stride=4), nn.Linear(4, num_classes)

    def forward(self, x):
        return self.out(F.relu(self.stem(x)).mean((2, 3)))


class Other(MyNet):
    pass


class Unchanged:
    def fine_tune(self, task):
        return task.model


def made(folder, **options):
    """Run with a method that changes nothing, and keep the weights."""
    results = mmc_bench.run(
        **{"methods": [Unchanged], "datasets": "tiny-set", "seeds": 0, "set": SMALL, "results": folder, **options},
        **QUICKLY,
        workers=0,
        keep_weights=True,
    )
    assert not results.failures
    return results


@pytest.mark.slow
def test_a_run_in_this_process_leaves_the_caller_s_classes_as_they_are(tmp_path):
    class Local(MyNet):
        def forward(self, x):
            return self.out(F.relu(self.stem(x)).mean((2, 3)))

    class Same:
        def fine_tune(self, task):
            return task.model

    before = method_offer(Same).digest, backbone_offer(Local).digest
    made(tmp_path, backbones=[Local], methods=[Same])
    assert Local.forward.__code__.co_filename == Same.fine_tune.__code__.co_filename == __file__
    assert (method_offer(Same).digest, backbone_offer(Local).digest) == before


# --- probes


def probed(folder, **options):
    return mmc_bench.probe(results=folder, **options, **QUICKLY)


def cue_free(folder):
    """Return the pretrainings without the cue."""
    models = [record.pretraining for record in Store(folder).pretrain_records()]
    return [pretraining for pretraining in models if not pretraining.cue_rate]


@pytest.mark.slow
def test_cells_of_a_class_are_probed_once_it_is_given_and_named_until_then(tmp_path, capsys):
    made(tmp_path, backbones=[MyNet])
    with pytest.raises(UserError, match=r"1 cell is left out .*my-net is a network of another program: .*backbones="):
        probed(tmp_path)
    made(tmp_path, backbones=[Other])
    one = probed(tmp_path, backbones=["*:my-*", Other]).to_frame()
    assert set(one["backbone"]) == {"other"}
    assert "my-net is a network of another program" in capsys.readouterr().err
    both = probed(tmp_path, backbones=[MyNet, Other]).to_frame()
    assert sorted(set(both["backbone"])) == ["my-net", "other"] and len(cue_free(tmp_path)) == 2


@pytest.mark.slow
def test_a_task_s_models_are_probed_whatever_its_network(tmp_path):
    task = mmc_bench.task("tiny-set", MyNet, results=tmp_path, set=SMALL, **QUICKLY)
    assert mmc_bench.probe({"mine": task.fresh().model}, task).to_frame()["method"].tolist()[-1] == "mine"


@pytest.mark.slow
def test_a_checkpoint_s_reference_is_pretrained_as_the_suite_says_which_must_be_named(tmp_path):
    own = {"mine": MyNet(3)}
    made(tmp_path, checkpoint=own)
    with pytest.raises(UserError, match=r"how to pretrain my-net \(mine\) without the cue: give --suite NAME"):
        probed(tmp_path, checkpoint=own)
    with pytest.raises(UserError, match=r"those of my-net \(mine\) need --backbone NAME and the same --checkpoint"):
        probed(tmp_path, set=SMALL)
    probed(tmp_path, checkpoint=own, methods=[Unchanged], datasets="tiny-set", seeds=0, set=SMALL)
    (reference,) = cue_free(tmp_path)
    assert reference.recipe.epochs == 1 and reference.checkpoint is None


@pytest.mark.slow
def test_the_reference_begins_with_the_weights_that_the_pretraining_began_with(tmp_path):
    network = MyNet(3)
    made(tmp_path, start={"mine": network}, backbones=[MyNet])
    (file,) = (tmp_path / "checkpoints").iterdir()
    file.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UserError, match=r"began with weights mine, and so must .*: give --start-from FILE"):
        probed(tmp_path, backbones=[MyNet])
    probed(tmp_path, backbones=[MyNet], start=tmp_path / "elsewhere.safetensors")
    (reference,) = cue_free(tmp_path)
    assert reference.start is not None and reference.start.name == "mine"

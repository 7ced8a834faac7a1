"""What became of the cue in networks of one's own: classes, trained networks, and weights to begin with."""

from torch import nn
from torch.nn import functional as F

import mmc_bench
from mmc_bench.plugin.in_memory import method_offer
from mmc_bench.plugin.in_memory_backbones import backbone_offer

QUICKLY = {"progress": False, "precision": "fp32"}
SMALL = {"pretrain.epochs": 1, "connect.points": 2, "data.clean_images": 100}


class MyNet(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self, num_classes):
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 4, 3, stride=4), nn.Linear(4, num_classes)

    def forward(self, x):
        return self.out(F.relu(self.stem(x)).mean((2, 3)))


class Unchanged:
    def fine_tune(self, task):
        return task.model


def made(folder, **options):
    """Run with a method that changes nothing, and keep the weights."""
    results = mmc_bench.run(
        **{"methods": [Unchanged], "datasets": "digits-box", "seeds": 0, "set": SMALL, "results": folder, **options},
        **QUICKLY,
        workers=0,
        keep_weights=True,
    )
    assert not results.failures
    return results


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

"""The conformance kit on backbones: a sound one passes, and each planted fault is found."""

import pytest
from helpers.kit import checks, source_of

INTERFACE, ROUND_TRIP = "has timm's interface", "is described in full by its state_dict"
SQUARE = "is built for 10 classes of 3x32x32"
FORWARD = "def forward(self, x):\n    "

FAULTS = {
    "logits of one class too many": (
        "def __init__(self, k, shape):\n    super().__init__(k + 1, shape)",
        SQUARE,
        "the output has shape (4, 11), not (4, 10)",
    ),
    "a class count that is fixed": (
        "def __init__(self, k, shape):\n    super().__init__(10, shape)",
        "is built for 100 classes of 3x32x32",
        "(4, 10), not (4, 100)",
    ),
    "an image size that is fixed": (
        FORWARD + "assert x.shape[2] == 32\n    return super().forward(x)",
        "is built for 10 classes of 3x64x32",
        "AssertionError",
    ),
    "chance in eval mode": (
        FORWARD + "return super().forward(nn.functional.dropout(x, 0.5, True))",
        SQUARE,
        "in eval mode two calls on the same images differ",
    ),
    "statistics that move in eval mode": (
        FORWARD + "self.norm1.running_mean.add_(1)\n    return super().forward(x)",
        SQUARE,
        "two calls",
    ),
    "no eval mode": (
        "def train(self, mode=True):\n    return super().train(True)",
        SQUARE,
        "the model stays out of eval mode",
    ),
    "no classifier to ask for": ("get_classifier = property()", INTERFACE, "has no get_classifier"),
    "logits that are not the classifier's": (
        FORWARD + "return super().forward(x) * 2",
        INTERFACE,
        "forward_head(forward_features(x)) is not forward(x)",
    ),
    "features that are not pooled": (
        "def forward_head(self, x, pre_logits=False):\n    return x if pre_logits else self.head(x.mean((2, 3)))",
        INTERFACE,
        "pre_logits=True gives shape (4, 8, 8, 8)",
    ),
    "a classifier that stays": (
        "def reset_classifier(self, k):\n    pass",
        "resets its classifier",
        "num_classes is 10",
    ),
    "a reset of everything": (
        "def reset_classifier(self, k):\n    super().reset_classifier(k)\n    self.norm1.weight.data += 1",
        "resets its classifier",
        "changes 'norm1.weight'",
    ),
    "weights of another generator": (
        "def __init__(self, k, shape):\n    super().__init__(k, shape)\n    "
        "self.head.bias.data = torch.rand(k, generator=torch.Generator().manual_seed(torch.seed() % 1000))",
        "draws its weights from torch's generator",
        "differ in 'head.bias'",
    ),
    "the batch's own statistics": (
        "def __init__(self, k, shape):\n    super().__init__(k, shape)\n    "
        "self.norm1 = nn.BatchNorm2d(8, track_running_stats=False)",
        "treats every image alone in eval mode",
        "depend on the other images",
    ),
    "a layer that is not used": (
        "def __init__(self, k, shape):\n    super().__init__(k, shape)\n    self.spare = nn.Linear(2, 2)",
        "trains every parameter",
        "no gradient reaches 'spare.weight'",
    ),
    "state outside the state_dict": (
        "def __init__(self, k, shape):\n    super().__init__(k, shape)\n    self.gain = torch.rand(1)\n"
        "def forward_features(self, x):\n    return super().forward_features(x) * self.gain",
        ROUND_TRIP,
        "outputs differ",
    ),
}


@pytest.mark.slow
def test_a_sound_backbone_passes_every_check_and_tells_what_can_be_permuted(tmp_path):
    found = checks(tmp_path, "backbone", source_of("backbone"))
    assert len(found) > 13
    assert {name: check.message for name, check in found.items() if not check.passed} == {}
    # the residual stream of 8 channels, and nothing else
    assert found["says whether it can be aligned"].message == "alignable: 8 units in 1 groups can change places"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_told_how_to_mend(tmp_path, fault):
    body, name, says = FAULTS[fault]
    check = checks(tmp_path, "backbone", source_of("backbone", body), name)[name]
    assert check.outcome == "failed"
    assert says in check.message
    assert len(check.remedy) > 10


def test_a_refusal_in_a_sentence_is_no_fault_unless_everything_is_refused(tmp_path):
    refuse = "def __init__(self, k, shape):\n    from mmc_bench import UserError\n    raise UserError('not today')"
    check = checks(tmp_path / "all", "backbone", source_of("backbone", refuse), SQUARE)[SQUARE]
    assert (check.outcome, check.message) == ("failed", "not today")
    some = refuse.replace("    raise", "    if k == 100: raise") + "\n    super().__init__(k, shape)"
    name = "is built for 100 classes of 3x32x32"
    check = checks(tmp_path / "some", "backbone", source_of("backbone", some), name)[name]
    assert (check.outcome, check.message) == ("not checked", "it refuses them: not today")

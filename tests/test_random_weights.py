"""A network whose weights are drawn at random keeps none of those that it was trained to."""

import pytest
import torch
from torch import nn

from mmc_bench.errors import UserError
from mmc_bench.plugin.random_weights import draw_weights


class Held(nn.Module):
    """A layer with a parameter of its own, and a linear layer."""

    def __init__(self, weight):
        super().__init__()
        self.own = nn.Parameter(weight, requires_grad=False)
        self.linear = nn.Linear(2, 2)


class Partly(Held):
    def reset_parameters(self):
        self.linear.reset_parameters()


class Wanting(Held):
    def reset_parameters(self, deviation):
        raise AssertionError


@pytest.mark.parametrize("family", [Held, Partly, Wanting])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64])
def test_every_parameter_gets_other_values(family, dtype):
    trained = torch.arange(1, 7, dtype=torch.float32).to(dtype)
    model = family(trained.clone())
    before = [weight.clone() for weight in model.parameters()]
    draw_weights(model)
    assert not any(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))


def test_equal_values_that_a_layer_resets_to_stay_and_draw_nothing():
    torch.manual_seed(0)
    expected = torch.rand(1)
    norm = nn.BatchNorm2d(3)
    torch.manual_seed(0)
    draw_weights(norm)
    assert torch.equal(norm.weight, torch.ones(3)) and torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("weight", "kind"),
    [(torch.arange(3), "int64"), (torch.ones(3) > 0, "bool"), (torch.eye(3).to_sparse(), "sparse_coo")],
)
def test_a_parameter_without_random_values_is_said_in_one_sentence(weight, kind):
    with pytest.raises(UserError, match=rf"Sequential: parameter 0\.own is torch\.{kind}, which has no random values"):
        draw_weights(nn.Sequential(Held(weight)))

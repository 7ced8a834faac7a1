"""Label propagation on small nets made by hand, operator by operator: what may move, with whom, and what not."""

import copy
from collections import Counter

import pytest
import torch
from helpers.alignment import checked_groups, sizes
from torch import nn
from torch.nn import functional as F

from mmc_bench import UserError
from mmc_bench.landscape.alignment import align, permutation_groups, random_permutations

IMAGE = (3, 8, 8)


class Net(nn.Module):
    """Layers by name, and a function of them."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def conv(n, m, kernel=3, **options):
    return nn.Conv2d(n, m, kernel, padding=kernel // 2, **options)


def head(x, layer):
    return layer(x.mean((2, 3)))


def reasons(groups):
    return {pinned.reason for pinned in groups.pinned} - {"the network's input", "the network's output"}


def places(groups, name):
    return {(place.weight, place.axis) for place in groups.by_name[name].places}


def test_a_residual_stream_is_one_group_and_a_hidden_layer_another():
    net = Net(
        lambda n, x: head((y := n.a(x).relu()) + n.c(n.b(y).relu()), n.d),
        a=conv(3, 6), b=conv(6, 5), c=conv(5, 6), d=nn.Linear(6, 2),
    )  # fmt: skip
    groups = checked_groups(net, IMAGE)
    assert sizes(groups) == [5, 6]
    stream = {("a.weight", 0), ("a.bias", 0), ("b.weight", 1), ("c.weight", 0), ("c.bias", 0), ("d.weight", 1)}
    assert places(groups, "a.weight") == stream
    assert places(groups, "b.weight") == {("b.weight", 0), ("b.bias", 0), ("c.weight", 1)}


def test_a_concatenation_keeps_its_parts_apart():
    net = Net(
        lambda n, x: head(n.norm(torch.cat([n.a(x), n.b(x).relu()], 1)), n.c),
        a=conv(3, 4), b=conv(3, 6), norm=nn.BatchNorm2d(10), c=nn.Linear(10, 2),
    )  # fmt: skip
    groups = checked_groups(net, IMAGE)
    assert sizes(groups) == [4, 6]
    (place,) = [place for place in groups.by_name["b.weight"].places if place.weight == "norm.running_var"]
    assert (place.start, place.inner) == (4, 1)


def test_flattened_feature_maps_move_in_blocks_of_positions():
    net = Net(lambda n, x: n.b(n.a(x).relu().flatten(1)), a=conv(3, 5), b=nn.Linear(5 * 64, 2))
    groups = checked_groups(net, IMAGE)
    (place,) = [place for place in groups.by_name["a.weight"].places if place.weight == "b.weight"]
    assert (place.axis, place.outer, place.inner) == (1, 1, 64)
    last = Net(lambda n, x: n.b(n.a(x).permute(0, 2, 3, 1).reshape(len(x), -1)), a=conv(3, 5), b=nn.Linear(5 * 64, 2))
    (place,) = [p for p in checked_groups(last, IMAGE).by_name["a.weight"].places if p.weight == "b.weight"]
    assert (place.outer, place.inner) == (64, 1)


def test_a_concatenation_is_flattened_part_by_part():
    net = Net(
        lambda n, x: n.c(torch.cat([n.a(x), n.b(x)], 1).flatten(1)),
        a=conv(3, 4), b=conv(3, 6), c=nn.Linear(10 * 64, 2),
    )  # fmt: skip
    assert sizes(checked_groups(net, IMAGE)) == [4, 6]


@pytest.mark.slow
def test_group_norm_ties_channels_to_blocks_and_one_group_does_not():
    def net(groups):
        return Net(
            lambda n, x: head(n.norm(n.a(x)).relu(), n.b), a=conv(3, 8), norm=nn.GroupNorm(groups, 8), b=nn.Linear(8, 2)
        )

    groups = checked_groups(net(4), IMAGE)
    assert sizes(groups) == [4, 8]
    assert groups.by_name["a.weight"].blocks == "blocks of a.weight"
    for free in (1, 8):
        assert sizes(checked_groups(net(free), IMAGE)) == [8]


def test_layer_norm_follows_its_channels():
    net = Net(
        lambda n, x: head(n.norm(n.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n.b),
        a=conv(3, 6), norm=nn.LayerNorm(6), b=nn.Linear(6, 2),
    )  # fmt: skip
    groups = checked_groups(net, IMAGE)
    assert {("norm.weight", 0), ("norm.bias", 0), ("b.weight", 1)} <= places(groups, "a.weight")


def test_grouped_convolution_moves_blocks_as_wholes_and_is_free_within_them():
    net = Net(
        lambda n, x: head(n.c(n.b(n.a(x)).relu()), n.d),
        a=conv(3, 8), b=conv(8, 12, groups=4), c=conv(12, 4), d=nn.Linear(4, 2),
    )  # fmt: skip
    groups = checked_groups(net, IMAGE)
    assert sizes(groups) == [4, 4, 8, 12]
    assert [len(tree) for tree in groups.trees()] == [1, 3]
    drawn = [random_permutations(groups, torch.Generator().manual_seed(seed)) for seed in range(400)]
    orders = Counter(tuple((p["a.weight"].view(4, 2) % 2)[:, 0].tolist()) for p in drawn)
    assert len(orders) == 2**4  # within every block an order of its own
    assert len({tuple(p["blocks of a.weight"].tolist()) for p in drawn}) == 24


def weight(*shape):
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(5)))


def grouped(x, weight, groups=4):
    return F.conv2d(x, weight, padding=1, groups=groups)


#: A grouped convolution's inner channels, met in another place too, from which nobody can tell their block.
MET_ELSEWHERE = {
    "read whole before": lambda n, x: head(F.conv2d(n.e(x), n.w, padding=1), n.f) + head(grouped(n.a(x), n.w), n.f),
    "read whole after": lambda n, x: head(grouped(n.a(x), n.w), n.f) + head(F.conv2d(n.e(x), n.w, padding=1), n.f),
    "scaled within blocks": lambda n, x: head(grouped(n.a(x), n.w * n.scale), n.f),
    "scaled with an axis more": lambda n, x: head(grouped(n.a(x), n.w * n.scale[None]), n.f),
    "read in other groups": lambda n, x: head(grouped(n.a(x), n.w), n.f) + head(grouped(n.g(x), n.w, 2), n.f),
}


@pytest.mark.parametrize("forward", MET_ELSEWHERE.values(), ids=MET_ELSEWHERE)
def test_inner_channels_of_a_grouped_convolution_that_are_met_elsewhere_stay_where_they_are(forward):
    net = Net(
        forward,
        a=conv(3, 8),
        e=conv(3, 2),
        g=conv(3, 4),
        w=weight(8, 2, 3, 3),
        scale=weight(2, 1, 1),
        f=nn.Linear(8, 2),
    )
    groups = checked_groups(net, IMAGE)
    assert "a.weight" not in groups.by_name and "w" in {pinned.weight for pinned in groups.pinned}


def test_a_grouped_weight_that_is_standardised_keeps_its_groups():
    def standardised(n, x):
        rows = n.w - n.w.mean((1, 2, 3), keepdim=True)
        return head(grouped(n.a(x), rows), n.f)

    groups = checked_groups(Net(standardised, a=conv(3, 8), w=weight(8, 2, 3, 3), f=nn.Linear(8, 2)), IMAGE)
    assert "a.weight" in groups.by_name


def test_depthwise_convolution_with_a_multiplier_gives_every_channel_a_block():
    net = Net(lambda n, x: head(n.b(n.a(x)), n.c), a=conv(3, 4), b=conv(4, 12, groups=4), c=nn.Linear(12, 2))
    groups = checked_groups(net, IMAGE)
    assert sizes(groups) == [4, 12]
    assert groups.by_name["b.weight"].blocks == "a.weight"


@pytest.mark.slow
def test_blocks_of_blocks_nest_and_blocks_that_do_not_nest_are_pinned():
    def net(first, second):
        return Net(
            lambda n, x: head(n.c(n.b(n.a(x))), n.d),
            a=conv(3, 12), b=nn.GroupNorm(first, 12), c=nn.GroupNorm(second, 12), d=nn.Linear(12, 2),
        )  # fmt: skip

    assert sizes(checked_groups(net(2, 6), IMAGE)) == [2, 6, 12]
    assert sizes(checked_groups(net(6, 2), IMAGE)) == [2, 6, 12]
    with pytest.raises(UserError, match=r"aten\.group_norm"):
        permutation_groups(net(4, 6), IMAGE)


@pytest.mark.slow
def test_a_grouped_convolution_over_a_concatenation_has_blocks_in_each_part():
    def net(n_a, n_b):
        return Net(
            lambda n, x: head(n.c(torch.cat([n.a(x), n.b(x)], 1)), n.d),
            a=conv(3, n_a), b=conv(3, n_b), c=conv(12, 12, groups=6), d=nn.Linear(12, 2),
        )  # fmt: skip

    # blocks of 2: parts of 4 and 8 have 2 and 4 of them
    assert sizes(checked_groups(net(4, 8), IMAGE)) == [2, 4, 4, 4, 8, 8]
    groups = checked_groups(net(5, 7), IMAGE)  # one block is half in either part
    assert sizes(groups) == [2] * 6  # the blocks stay, and their outputs are free within them
    assert reasons(groups) == {"aten.conv2d.default"}


def test_squeeze_and_excitation_follows_the_channels_it_gates():
    net = Net(
        lambda n, x: head((y := n.a(x)) * n.c(n.b(y.mean((2, 3), keepdim=True)).relu()).sigmoid(), n.d),
        a=conv(3, 6), b=conv(6, 2, 1), c=conv(2, 6, 1), d=nn.Linear(6, 2),
    )  # fmt: skip
    groups = checked_groups(net, IMAGE)
    assert sizes(groups) == [2, 6]
    assert {("b.weight", 1), ("c.weight", 0), ("c.bias", 0)} <= places(groups, "a.weight")


def test_a_shortcut_padded_with_zero_channels_ties_the_first_channels_and_frees_the_rest():
    net = Net(
        lambda n, x: head(n.b(y := n.a(x)) + F.pad(y, (0, 0, 0, 0, 0, 4)), n.c),
        a=conv(3, 4), b=conv(4, 8), c=nn.Linear(8, 2),
    )  # fmt: skip
    groups = checked_groups(net, IMAGE)
    assert ("b.weight", 1) in places(groups, "a.weight") and ("b.weight", 0) in places(groups, "a.weight")


def test_channels_split_in_two_are_two_groups():
    def forward(n, x):
        first, second = n.a(x).chunk(2, 1)
        return head(n.b(first * second.sigmoid()), n.c)

    groups = checked_groups(Net(forward, a=conv(3, 8), b=conv(4, 5), c=nn.Linear(5, 2)), IMAGE)
    assert sizes(groups) == [4, 5]  # the halves are multiplied: one permutation for both
    starts = {place.start for place in groups.by_name["a.weight[0:4]"].places if place.weight == "a.weight"}
    assert starts == {0, 4}


def test_spatial_pads_slices_and_pools_leave_channels_alone():
    net = Net(
        lambda n, x: head(F.max_pool2d(F.pad(n.a(x), (1, 1, 1, 1), mode="reflect")[:, :, 1:, ::2], 2), n.b),
        a=conv(3, 6), b=nn.Linear(6, 2),
    )  # fmt: skip
    assert sizes(checked_groups(net, IMAGE)) == [6]


def test_vectors_for_each_channel_follow_them():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.act, self.b = conv(3, 6), nn.PReLU(6), nn.Linear(6, 2)
            self.scale = nn.Parameter(torch.ones(6))

        def forward(self, x):
            return head(self.act(self.a(x)) * self.scale.reshape(1, -1, 1, 1), self.b)

    assert {("act.weight", 0), ("scale", 0)} <= places(checked_groups(Scaled(), IMAGE), "a.weight")


def test_weights_that_are_shared_are_permuted_once_for_all_who_use_them():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(n, m) for n, m in ((3, 6), (6, 6), (6, 6), (6, 2)))
            self.c.weight = self.b.weight

        def forward(self, x):
            return self.d(self.c(self.b(self.a(x).tanh()).tanh()).tanh())

    groups = checked_groups(Tied(), (3,))
    assert sizes(groups) == [6]  # what goes in and comes out of the shared layer is one group
    assert {("b.weight", 0), ("b.weight", 1), ("b.bias", 0), ("c.bias", 0)} <= places(groups, "a.weight")


@pytest.mark.slow
def test_transposed_convolution_and_attention_have_rules():
    up = Net(
        lambda n, x: head(n.b(n.a(x).relu()), n.c),
        a=conv(3, 4), b=nn.ConvTranspose2d(4, 6, 2, stride=2), c=nn.Linear(6, 2),
    )  # fmt: skip
    assert sizes(checked_groups(up, IMAGE)) == [4, 6]
    attend = Net(
        lambda n, x: n.out(F.scaled_dot_product_attention(n.q(x), n.k(x), n.v(x))).mean(1),
        q=nn.Linear(3, 5), k=nn.Linear(3, 5), v=nn.Linear(3, 7), out=nn.Linear(7, 2),
    )  # fmt: skip
    assert sizes(checked_groups(attend, (4, 3))) == [5, 7]


# --- what is left as it is


def test_an_unknown_operator_pins_what_reaches_it_and_is_reported_with_it():
    net = Net(
        lambda n, x: head(n.b(F.pixel_shuffle(n.a(x), 2)).relu(), n.c),
        a=conv(3, 8), b=conv(2, 5), c=nn.Linear(5, 2),
    )  # fmt: skip
    groups = checked_groups(net, IMAGE)
    assert sizes(groups) == [5]
    pinned = {(p.weight, p.axis) for p in groups.pinned if p.reason == "aten.pixel_shuffle.default"}
    assert pinned == {("a.weight", 0), ("a.bias", 0), ("b.weight", 1)}


@pytest.mark.slow
def test_a_region_with_its_own_arithmetic_pins_what_reaches_it_and_the_rest_is_aligned():
    def forward(n, x):
        y = n.b(n.a(x).relu())
        with torch.autocast("cpu", enabled=False):
            y = n.c(y * 2)
        return head(n.e(y.relu()), n.d)

    layers = {"a": conv(3, 6), "b": conv(6, 5), "c": conv(5, 4), "e": conv(4, 7), "d": nn.Linear(7, 2)}
    groups = checked_groups(Net(forward, **layers), IMAGE)
    assert {"a.weight", "e.weight"} <= set(groups.by_name) and "b.weight" not in groups.by_name
    assert any("autocast" in reason for reason in reasons(groups))
    torch.manual_seed(0)
    nets = [Net(forward, **{name: copy.deepcopy(layer) for name, layer in layers.items()}) for _ in range(2)]
    assert align(*nets, [torch.randn(4, *IMAGE)]).verified


def test_axes_that_are_reversed_are_followed():
    net = Net(lambda n, x: head(F.conv2d(x, n.w.T, padding=1).relu(), n.d), w=weight(3, 3, 3, 5), d=nn.Linear(5, 2))
    groups = checked_groups(net, IMAGE)
    assert ("w", 3) in places(groups, "w")


def test_a_weight_that_nothing_reads_is_in_no_group():
    net = Net(lambda n, x: head(n.a(x), n.d), a=conv(3, 6), d=nn.Linear(6, 2), idle=nn.Linear(7, 7))
    assert not any(place.weight.startswith("idle") for group in checked_groups(net, IMAGE) for place in group.places)


def test_shuffled_channels_are_pinned_by_the_reshape_that_tears_them_apart():
    def forward(n, x):
        y = n.a(x)
        y = y.view(len(y), 2, 4, 8, 8).transpose(1, 2).reshape(y.shape)
        return head(n.b(y).relu(), n.c)

    groups = checked_groups(Net(forward, a=conv(3, 8), b=conv(8, 5), c=nn.Linear(5, 2)), IMAGE)
    assert sizes(groups) == [5] and reasons(groups) == {"aten.view.default"}


def test_a_constant_pins_what_it_meets():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = conv(3, 6), conv(6, 5), nn.Linear(5, 2)
            self.shift = torch.arange(6.0).view(1, 6, 1, 1)  # no parameter, no buffer: it cannot be permuted

        def forward(self, x):
            return head(self.b(self.a(x) + self.shift.to(x.dtype)).relu(), self.c)

    assert sizes(checked_groups(Shifted(), IMAGE)) == [5]


@pytest.mark.parametrize(
    ("net", "named"),
    [
        (Net(lambda n, x: n.b(n.a(x).sort(1).values), a=nn.Linear(3, 6), b=nn.Linear(6, 2)), r"aten\.sort"),
        (nn.Linear(3, 2), "no hidden"),
    ],
)
def test_where_nothing_can_be_aligned_an_error_names_what_stands_in_the_way(net, named):
    with pytest.raises(UserError, match=named):
        permutation_groups(net, (3,))


def test_what_cannot_be_traced_is_a_user_error():
    net = Net(lambda n, x: n.a(x) if x.sum() > 0 else n.a(-x), a=nn.Linear(3, 2))
    with pytest.raises(UserError, match="cannot trace"):
        permutation_groups(net, (3,))


def test_a_network_that_raises_is_a_user_error_whatever_it_raises():
    def forward(n, x):
        raise ValueError("images of 224 pixels, please")

    with pytest.raises(UserError, match="224 pixels, please"):
        permutation_groups(Net(forward, a=conv(3, 6)), IMAGE)

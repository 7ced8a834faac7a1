"""What the tests of alignment share: networks by name, random and trained weights, a check of a permutation."""

import copy

import torch
from torch import nn

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.landscape.alignment import output_difference, permutation_groups, permute, random_permutations
from mmc_bench.landscape.batchnorm import reestimate_batchnorm
from mmc_bench.plugin.registry import Registry

SHAPE = (3, 32, 32)

PLUGINS = ("resnet8", "resnet18", "vgg13")

#: Of timm, with what makes some of them flatter.
TIMM = {
    "resnet18": {},
    "resnet50": {},
    "densenet121": {"block_config": (3, 2, 3, 2), "growth_rate": 8},
    "mobilenetv3_small_050": {},
    "efficientnet_b0": {},
    "regnetx_002": {},
    "convnext_atto": {"depths": (2, 1, 2, 1), "dims": (16, 24, 32, 40)},
    "vgg11_bn": {},
}
ARCHITECTURES = (*PLUGINS, *(f"timm/{name}" for name in TIMM))

#: Those in which `narrowed` knows every layer that counts channels.
WIDE = ("resnet18", "vgg13", "timm/resnet18", "timm/resnet50", "timm/vgg11_bn")


def build(name):
    """Return a backbone plugin's network, or after `timm/`, one of timm's; wide ones narrowed."""
    torch.manual_seed(0)
    family, _, model = name.rpartition("/")
    if family:
        import timm  # takes two seconds, which other tests need not wait for

        network = timm.create_model(model, num_classes=10, **TIMM[model])
    else:
        offer = Registry.discover().get("backbone", name)
        network = offer.load()(num_classes=10, input_shape=shape_of(name), **offer.spec.defaults)
    return narrowed(network) if name in WIDE else network


def narrowed(network, times=8):
    """Return a network with a fraction of the channels, connected as before: an assignment takes their number cubed."""

    def few(channels):
        return channels if channels == SHAPE[0] else channels // times

    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Conv2d):
                places = (layer.kernel_size, layer.stride, layer.padding)
                other = nn.Conv2d(few(layer.in_channels), few(layer.out_channels), *places, bias=layer.bias is not None)
            elif isinstance(layer, nn.BatchNorm2d):
                other = nn.BatchNorm2d(few(layer.num_features))
            elif isinstance(layer, nn.Linear):
                other = nn.Linear(few(layer.in_features), layer.out_features)
            else:
                continue
            setattr(parent, name, other)
    return network


def shape_of(name):
    """Return the shape of an architecture's images: those for timm's become 32 times smaller."""
    return SHAPE if "/" in name else (3, 16, 16)


@torch.no_grad()
def randomised(model, seed=1):
    """Give every vector and every buffer random values, so that no two units are alike; float64, eval mode."""
    torch.manual_seed(seed)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point() and (value.ndim == 1 or not value.any()):
            value.uniform_(0.5, 1.5)
    return model.double().eval()


def trained(model, images, steps=2):
    """Return a network after a few steps on random labels, its BatchNorm statistics those of the images.

    Without these, units of deep layers never fire: those that read them alone have nothing to tell them apart.
    """
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    labels = torch.randint(10, (len(images),))
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(images), labels).backward()
        optimizer.step()
    index = torch.arange(len(images))
    reestimate_batchnorm(model, CuedImages(images, index, labels, index, lambda x, _: x))
    return model.eval()


def batch(n=8, shape=SHAPE, seed=4):
    """Return random images of shape (n, …)."""
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def shuffled(model, groups, seed=3):
    """Return a randomly permuted copy, and its permutations."""
    permutations = random_permutations(groups, torch.Generator().manual_seed(seed))
    return permute(model, groups, permutations), permutations


def checked_groups(model, shape):
    """Return a network's groups, having made sure that random permutations of all of them change no output."""
    model = randomised(copy.deepcopy(model))
    groups = permutation_groups(model, shape)
    permuted, _ = shuffled(model, groups)
    assert output_difference(model, permuted, shape) < 1e-9
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), permuted.parameters()))
    return groups


def sizes(groups):
    """Return the groups' sizes, sorted."""
    return sorted(group.size for group in groups)


def undone(found, permutations, groups):
    """Return the names of the groups whose permutation was not brought back to where it was."""
    return [
        group.name
        for group in groups
        if not torch.equal(permutations[group.name][found[group.name]], torch.arange(group.size))
    ]

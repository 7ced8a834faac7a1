"""Frozen features, computed once, and the linear layer trained on them."""

import torch
from torch import nn

from mmc_bench.data.splits import CuedImages
from mmc_bench.training.loop import cosine, sgd
from mmc_bench.training.precision import cross_entropy, full_precision
from mmc_bench.training.progress import Progress


@torch.no_grad()
def features(model: nn.Module, images: CuedImages) -> torch.Tensor:
    """Return what the model's last linear layer sees, in eval mode, of shape (N, F).

    F is ``model.get_classifier().in_features``; in some of timm's models it is not ``num_features``."""
    model.eval()
    batches = [
        model.forward_head(model.forward_features(x), pre_logits=True)  # type: ignore[operator]
        for x, _ in images.in_order()
    ]
    return torch.cat(batches).float()


def linear_probe(
    model: nn.Module,
    images: CuedImages,
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    generator: torch.Generator,
    progress: Progress,
) -> nn.Module:
    """Replace the model's last linear layer by a new random one trained on frozen features, in place.

    Last-layer retraining (Kirichenko et al., 2022b): SGD with momentum .9 and no weight decay, cosine to 0.
    The backbone stays in eval mode and its features, which never change, are computed once.

    Returns
    -------
    nn.Module
        The model, in eval mode.
    """
    inputs = features(model, images)  # (N, F)
    model.reset_classifier(model.num_classes)  # type: ignore[operator]
    layer = model.get_classifier().to(inputs.device)  # type: ignore[operator]
    steps = -(-len(inputs) // batch_size)
    optimizer = sgd(layer.parameters(), lr=lr, weight_decay=0.0)
    schedule = cosine(optimizer, epochs * steps)
    for _ in progress.epochs(epochs):
        order = torch.randperm(len(inputs), generator=generator, device=generator.device).to(inputs.device)
        for rows in order.split(batch_size):
            with full_precision(inputs.device):  # a learning rate of 30 would magnify bfloat16's rounding
                loss = cross_entropy(layer(inputs[rows]), images.labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.step(loss, len(rows))
    return model.eval()

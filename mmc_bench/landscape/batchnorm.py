"""Re-estimating BatchNorm statistics of a network that training never visited."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmc_bench.data.splits import CuedImages
from mmc_bench.training.evaluate import eval_mode


@torch.no_grad()
def reestimate_batchnorm(model: nn.Module, images: CuedImages, batch_size: int | None = None) -> None:
    """Replace the running statistics by sample-weighted averages over `images`, in place.

    torch's own cumulative mode (``momentum=None``) gives every batch one weight; here a batch weighs as much
    as it has images, so that the last, smaller one counts for no more than it holds. Only BatchNorm layers
    run in training mode. A network without them is left as it is, and runs no image. A batch has 250 images, on a
    GPU 1,000, unless said otherwise.
    """
    batch_size = batch_size or (1000 if images.labels.device.type == "cuda" else 250)
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    layers = [layer for layer in layers if layer.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    with eval_mode(model):
        for layer in layers:
            layer.reset_running_stats()
            layer.train()
        seen = 0
        for x, _ in images.in_order(batch_size):
            if len(x) > 1:
                seen += len(x)
                for layer in layers:
                    layer.momentum = len(x) / seen
                model(x)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum

"""Where a model looks: which share of its input gradients falls on the cue."""

from dataclasses import dataclass

import torch
from torch import nn

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.training.backbone import logits
from mmc_bench.training.evaluate import eval_mode
from mmc_bench.training.precision import full_precision


@dataclass(frozen=True)
class Attribution:
    """The share of the gradients on the cue's pixels, None where all are 0, and the share of pixels that it covers."""

    share: float | None
    pixels: float


def attribution(model: nn.Module, cued: CuedImages, cue_free: CuedImages) -> Attribution:
    """Return which share of a model's input gradients falls on the pixels that the cue changes.

    An image's saliency is |∂ logit of the predicted class / ∂ x|, summed over channels (Simonyan et al., 2014). Its
    share on the cue's pixels is averaged over the images that their cue changes, and that have a gradient. A model that
    looks everywhere alike has a share equal to that of the pixels.

    Parameters
    ----------
    cued, cue_free
        The same images with their cues and without; a pixel is the cue's where the two differ in a channel.
    """
    shares, pixels = [], []
    with eval_mode(model), full_precision(cued.labels.device):
        for (x, _), (plain, _) in zip(cued.in_order(), cue_free.in_order(), strict=True):
            changed = _over_channels(x != plain).flatten(1)  # (n, P)
            saliency = _over_channels(saliencies(model, x)).flatten(1)  # (n, P)
            total, on_cue = saliency.sum(1), (saliency * (changed > 0)).sum(1)
            there = (changed > 0).float().mean(1)
            pixels.append(there[there > 0].cpu().double())
            shares.append((on_cue / total)[(there > 0) & (total > 0)].cpu().double())
    share, coverage = torch.cat(shares), torch.cat(pixels)
    return Attribution(
        share.mean().item() if len(share) else None,
        coverage.mean().item() if len(coverage) else 0.0,
    )


def saliencies(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return |∂ logit of the predicted class / ∂ x| of each image, of the images' shape."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        best = logits(model, x.clone()).amax(1).sum()  # a network may change its input in place
        return torch.autograd.grad(best, x)[0].abs()


def _over_channels(values: torch.Tensor) -> torch.Tensor:
    """Return the sum over the channels of images (n, C, H, W); vectors have none."""
    return values.sum(1) if values.ndim == 4 else values

"""Frozen features, computed once, and the linear layer trained on them."""

from collections.abc import Sequence

import torch

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.training.backbone import Backbone, features
from mmc_bench.training.descent import Descent
from mmc_bench.training.precision import cross_entropy, full_precision
from mmc_bench.training.progress import Progress


@torch.no_grad()
def frozen_features(model: Backbone, images: CuedImages) -> torch.Tensor:
    """Return the `features` of a set of images, in float32, of shape (N, F); the model is put into eval mode."""
    model.eval()
    return torch.cat([features(model, x) for x, _ in images.in_order()]).float()


def linear_probe(
    model: Backbone,
    images: CuedImages,
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    generator: torch.Generator,
    progress: Progress,
) -> Backbone:
    """Replace the model's last linear layer by a new random one trained on frozen features, in place.

    Last-layer retraining (Kirichenko et al., 2022b): SGD with momentum .9 and no weight decay, cosine to 0.
    The backbone stays in eval mode and its features, which never change, are computed once.

    Returns
    -------
    Backbone
        The model, in eval mode.
    """
    inputs = frozen_features(model, images)  # (N, F)
    model.reset_classifier(model.num_classes)
    layer = model.get_classifier().to(inputs.device)

    def shuffled() -> Sequence[torch.Tensor]:
        order = torch.randperm(len(inputs), generator=generator, device=generator.device)
        batches: Sequence[torch.Tensor] = order.to(inputs.device).split(batch_size)
        return batches

    descent = Descent(
        layer.parameters(),
        lr=lr,
        epochs=epochs,
        steps_per_epoch=-(-len(inputs) // batch_size),
        progress=progress,
        weight_decay=0.0,
    )
    for rows in descent.each(shuffled):
        with full_precision(inputs.device):  # a learning rate of 30 would magnify bfloat16's rounding
            loss = cross_entropy(layer(inputs[rows]), images.labels[rows])
        descent.minimise(loss)
    return model.eval()

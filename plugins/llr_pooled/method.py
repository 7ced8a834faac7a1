"""Last-layer retraining on the clean and the cued set together: what the cued images add to it, or take."""

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, CuedImages, Task, Training, environment_risks, frozen_features, full_precision


class PooledLastLayerRetraining:
    """Keep the backbone, in eval mode, and train a new random linear layer on the mean of the two sets' cross-entropy.

    Features are computed once. As in erm-pooled, a step has a batch of each set.
    """

    class Config(BaseConfig):
        """As in llr, that is as in App. A.2 of Lubana et al. (2023)."""

        lr: Annotated[float, LogUniform(0.3, 100.0)] = Field(
            30.0, gt=0, description="initial learning rate of the linear layer, cosine to 0"
        )
        epochs: int = Field(100, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each set")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the model with its new last layer."""
        model = task.model
        clean, cued = (features_of(images, model) for images in (task.clean, task.cued))
        model.reset_classifier(model.num_classes)
        layer = model.get_classifier().to(task.device)
        training = Training(
            layer, clean, generator=task.generator, progress=task.progress, weight_decay=0.0, **dict(self.config)
        )
        for (f_nc, y_nc), (f_c, y_c) in training.pairs(cued):
            with full_precision(task.device):  # a learning rate of 30 would magnify bfloat16's rounding
                loss = environment_risks(layer(torch.cat([f_c, f_nc])), y_c, y_nc).mean()
            training.minimise(loss)
        return model.eval()


def features_of(images: CuedImages, model: Backbone) -> CuedImages:
    """Return a set that holds the features (N, F) of a set's images in their place, whose visits do not count again."""
    return replace(images, held=frozen_features(model, images), role=None)

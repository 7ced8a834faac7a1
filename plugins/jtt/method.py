"""Just train twice (Liu et al., ICML 2021, algorithm 1 and eq. 3)."""

from itertools import islice

import torch
from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.training import Backbone, Task, cross_entropy


class JTT:
    """Train θ on the clean and the cued set together, where each image that θ_C gets wrong comes λ_up times.

    θ_C is the model of the first training; θ starts from it too, since it is what is to be repaired (the paper starts
    anew). The paper's first training is cut short so that it errs on its training set. θ_C was trained to the
    end and errs hardly anywhere on the cued set: nearly all of the error set are clean images, which it never
    saw. Where θ_C is right everywhere, nothing is upsampled.
    """

    class Config(BaseConfig):
        """`upsampling` is the paper's for CelebA (100 for Waterbirds, 4 to 6 for text); the authors' code adds λ_up
        copies to the set, the paper's eq. 3, followed here, counts the image itself among them.

        The rest is as in all fine-tuning here; the paper's weight decay (.1, 1) goes with a learning rate of 1e-5.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set: as many batches as those would take")
        batch_size: int = Field(256, ge=2, description="images in a batch, of the upsampled set")
        upsampling: int = Field(50, ge=1, description="λ_up: how often an image of the error set comes")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c = self.config
        pool = task.clean.joined(task.cued)
        with torch.no_grad():
            wrong = torch.cat([task.pretrained(x).argmax(1) != y for x, y in pool.in_order()])  # (N,)
        batches = pool.subset(upsampled(wrong, c.upsampling)).stream(c.batch_size, task.generator)
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        for x, y in training.each(lambda: islice(batches, training.steps_per_epoch)):
            training.minimise(cross_entropy(training.logits(x), y))
        return task.model


def upsampled(wrong: torch.Tensor, times: int) -> torch.Tensor:
    """Return the rows of a set in which every image comes once, and one that is `wrong` (N,) `times` times."""
    rows = torch.arange(len(wrong), device=wrong.device)
    return torch.cat([rows, rows[wrong].repeat(times - 1)])

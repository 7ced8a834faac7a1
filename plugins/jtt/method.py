"""Just train twice (Liu et al., ICML 2021, algorithm 1 and eq. 3)."""

from typing import Annotated

import torch
from pydantic import Field

from mmc_bench import BaseConfig, Choice
from mmc_bench.training import Backbone, Task, cross_entropy


class JTT:
    """Train θ on the clean and the cued set together, where an image that θ_C gets wrong counts λ_up times:

    (λ_up Σ_{i ∈ E} CE_i + Σ_{i ∉ E} CE_i) / (λ_up |E| + N - |E|),  E the error set.

    The paper repeats the images of E in the set, and passes over it for dozens of epochs, so that a right image is
    shown in each. In the steps that methods have here, most right images would not be shown once. So a step takes a
    batch of the clean set, which is passed over once an epoch, and as many cued images at random, and weighs their
    losses: in expectation the same objective, eq. 3 over the sum of its weights.

    θ_C is the model of the first training; θ starts from it too, since it is what is to be repaired (the paper starts
    anew). The paper's first training is cut short so that it errs on its training set. θ_C was trained to the
    end and errs hardly anywhere on the cued set: nearly all of the error set are clean images, which it never
    saw. Not all these errors are the cue's: where θ_C errs on half of the clean set, as with few CIFAR-10 images,
    λ_up = 50 leaves the other half hardly any weight, and NC falls. Where θ_C errs nowhere, all images count alike.
    """

    class Config(BaseConfig):
        """`upsampling` is the paper's for CelebA (100 for Waterbirds, 4 to 6 for text: anniesch/jtt, README.md), and is
        searched over the paper's (generate_downstream.py, `up_weights`, has 20, 50, 100). The authors' code adds λ_up
        copies to the set (run_expt.py, `main`); eq. 3, followed here, counts the image itself among them.

        The rest is as in all fine-tuning here; the paper's weight decay (.1, 1) goes with a learning rate of 1e-5.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each set")
        upsampling: Annotated[int, Choice(5, 20, 50, 100)] = Field(
            50, ge=1, description="λ_up: how many times an image of the error set counts"
        )

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c = self.config
        pool = task.clean.joined(task.cued)
        with torch.no_grad():
            wrong = torch.cat([task.pretrained(x).argmax(1) != y for x, y in pool.in_order()])  # (N,)
        weights = objective_weights(wrong, c.upsampling)
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        for rows in training.paired_rows(torch.ones(len(task.cued), device=task.device)):
            x, y = pool.batch(rows)
            losses = weights[rows] * cross_entropy(training.logits(x), y, reduction="none")
            clean, cued = losses.chunk(2)  # each batch stands for its whole set
            training.minimise(len(task.clean) * clean.mean() + len(task.cued) * cued.mean())
        return task.model


def objective_weights(wrong: torch.Tensor, times: int) -> torch.Tensor:
    """Return the share (N,) in the objective of each image: one that is `wrong` (N,) counts `times` times."""
    weights = torch.where(wrong, float(times), 1.0)
    return weights / weights.sum()

"""Environment inference for invariant learning (Creager et al., ICML 2021), with group DRO."""

from typing import Annotated

import torch
from pydantic import Field

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.training import Backbone, Task, cross_entropy, equal_chances, group_losses, in_float64


class EIIL:
    """Infer two environments of the clean and the cued images from a reference model, θ_C, then fine-tune with group
    DRO over the groups (label, inferred environment), as the paper does on Waterbirds.

    The reference breaks IRM's invariance in the inferred environments as strongly as it can: they maximise its penalty
    ‖(1/N) Σ_i q_i g_i‖² + ‖(1/N) Σ_i (1-q_i) g_i‖² over q ∈ [0, 1]^N, with g_i the derivative of image i's
    cross-entropy by a scale of the logits. The two sums add up to a constant, so the maximum has all g_i > 0 in one
    environment and all g_i < 0 in the other: images on which more confidence would raise the loss, nearly
    those that θ_C gets wrong, and the others. The authors climb there by Adam (ecreager/eiil,
    opt_env/utils/opt_utils.py, `split_data_opt`), which leaves an image whose g_i vanishes where chance put it.

    The paper stops its reference early; θ_C was trained to the end, and errs mostly on clean images.
    """

    class Config(BaseConfig):
        """`group_step_size` is group DRO's (kohpangwei/group_DRO, run_expt.py, --robust_step_size), searched in
        DomainBed's range (domainbed/hparams_registry.py); the rest, and how groups are drawn, is as in groupdro.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate, cosine to 0")
        epochs: int = Field(20, ge=1, description="passes over the clean set")
        batch_size: int = Field(256, ge=2, description="images in a batch, of each set")
        group_step_size: Annotated[float, LogUniform(0.001, 0.1)] = Field(
            0.01, ge=0, description="η_q: q_g is multiplied by exp(η_q · loss of group g)"
        )

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the fine-tuned model."""
        c = self.config
        pool = task.clean.joined(task.cued)
        with torch.no_grad():
            environments = torch.cat([scale_gradients(task.pretrained(x), y) > 0 for x, y in pool.in_order()])
        environments = environments.to(task.device).long()
        groups = environments * task.num_classes + pool.labels  # (N,)
        counts = torch.bincount(groups, minlength=2 * task.num_classes)  # (G,)
        q = (counts > 0) / (counts > 0).sum()
        cued = groups[len(task.clean) :]
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        for rows in training.paired_rows(equal_chances(cued)):
            x, y = pool.batch(rows)
            losses = group_losses(cross_entropy(training.logits(x), y, reduction="none"), groups[rows], len(counts))
            q = q * (c.group_step_size * losses.detach()).exp()
            q = q / q.sum()
            training.minimise((q * losses).sum())
        return task.model


def scale_gradients(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """∂/∂s CE(s·z, y) at s = 1 for each image, Σ_k softmax(z)_k z_k - z_y, of logits (n, K): (n,)."""
    logits = in_float64(logits)
    own = logits.gather(1, labels.to(logits.device)[:, None])[:, 0]
    return (logits.softmax(1) * logits).sum(1) - own

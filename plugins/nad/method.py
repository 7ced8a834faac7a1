"""Neural attention distillation (Li et al., ICLR 2021)."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from mmc_bench import BaseConfig, LogUniform
from mmc_bench.errors import UserError
from mmc_bench.training import Backbone, Task, cross_entropy


class NeuralAttentionDistillation:
    """Fine-tune a copy of θ_C on the clean set, the teacher; then fine-tune θ with its cross-entropy + Σ_l β_l · the
    distance of its attention maps from the teacher's.

    l goes over the resolutions within the network: a map is taken where its last feature maps come out, in a ResNet at
    the end of each stage, as in the authors' networks.
    """

    class Config(BaseConfig):
        """β, p, lr, momentum, weight decay, cosine and batch are those of BackdoorBench (SCLBD/BackdoorBench,
        config/defense/nad/cifar10.yaml), as are the teacher's epochs; β and p are the authors', too (bboylyg/NAD,
        config.py, which in its last version has β = 0, 0, 5000).

        The authors' learning rate is .1 for two epochs, then .01 (utils/util.py, `adjust_learning_rate`). Teacher and
        student together pass over the clean set as often as all fine-tuning here. Neither is given augmented images.
        """

        lr: float = Field(0.01, gt=0, description="initial learning rate of teacher and student, cosine to 0")
        teacher_epochs: int = Field(10, ge=1, description="passes over the clean set for the teacher")
        epochs: int = Field(10, ge=1, description="passes over the clean set for the student")
        batch_size: int = Field(256, ge=2, description="images in a batch")
        beta: Annotated[float, LogUniform(100.0, 10000.0)] = Field(
            1000.0, ge=0, description="β: weight of each resolution's distance, of which the first has half"
        )
        power: float = Field(2.0, gt=0, description="p: power of the activations in an attention map")

    config: Config

    def fine_tune(self, task: Task) -> Backbone:
        """Return the student.

        Raises
        ------
        UserError
            When the network has no feature maps, or works on tokens or on maps with the channels last.
        """
        c, student, teacher = self.config, task.model, copy.deepcopy(task.model)
        places = last_of_each_resolution(task.pretrained, task.clean.batch(slice(2))[0])
        task.training(lr=c.lr, epochs=c.teacher_epochs, batch_size=c.batch_size, model=teacher).fit()
        teacher.eval().requires_grad_(False)
        betas = [c.beta / 2] + [c.beta] * (len(places) - 1)
        training = task.training(lr=c.lr, epochs=c.epochs, batch_size=c.batch_size)
        with outputs_at(student, places) as own, outputs_at(teacher, places) as wanted:
            for x, y in training.batches():
                loss = cross_entropy(student(x), y)
                teacher(x)
                for beta, place in zip(betas, places):
                    loss = loss + beta * attention_distance(own[place], wanted[place], c.power)
                training.minimise(loss)
        return student


def attention_distance(own: torch.Tensor, wanted: torch.Tensor, power: float) -> torch.Tensor:
    """Return the mean squared difference of the attention maps of feature maps (n, C, h, w), over images and pixels."""
    return F.mse_loss(attention(own, power), attention(wanted, power))


def attention(maps: torch.Tensor, power: float) -> torch.Tensor:
    """Return A/‖A‖, A = Σ_c |F_c|^p, of feature maps F (n, C, h, w), as (n, h·w) (bboylyg/NAD, at.py)."""
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    summed = maps.abs().pow(power).sum(1).flatten(1)
    normalised: torch.Tensor = summed / (summed.norm(dim=1, keepdim=True) + 1e-6)
    return normalised


@torch.no_grad()
def last_of_each_resolution(model: Backbone, x: torch.Tensor) -> list[str]:
    """Return, from the input on, the name of the module that puts out the last feature maps of each resolution.

    Raises
    ------
    UserError
        When nothing in the network puts out maps (n, C, h, w), or a linear layer works on tokens, as in transformers,
        or on maps with the channels last, as in ConvNeXt.
    """
    with outputs_at(model, [name for name, _ in model.named_modules() if name]) as found:
        model.forward_features(x)
    maps = {name: output for name, output in found.items() if isinstance(output, torch.Tensor) and output.ndim == 4}
    if not maps:
        raise UserError("nad compares feature maps (n, C, h, w), and this network has none: take a convolutional one")
    for name, output in found.items():
        if isinstance(model.get_submodule(name), nn.Linear) and output.ndim > 2:  # it works on the last dimension
            raise UserError(
                f"nad compares feature maps (n, C, h, w), and {name} of this network works on tokens, or on maps with "
                "the channels last: take a network of convolutions alone"
            )
    return list({output.shape[2:]: name for name, output in maps.items()}.values())


@contextmanager
def outputs_at(model: nn.Module, places: list[str]) -> Iterator[Mapping[str, torch.Tensor]]:
    """Keep the last output of each of a network's modules with these names, in the order in which they came."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(place: str, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        outputs.pop(place, None)
        outputs[place] = output

    hooks = [model.get_submodule(place).register_forward_hook(partial(keep, place)) for place in places]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()

"""The data of the simplified model (Lubana et al., 2023, App. F.3, eq. 8)."""

from typing import Literal

import torch
from pydantic import Field

from mmc_bench import BaseConfig
from mmc_bench.data.contract import ImageSources, LabelledImages
from mmc_bench.data.mapped import in_memory

from .attribute import Attribute

CONTENT, CUE = 0, 1  # coordinates of the two attributes


class KComplex:
    """Binary labels, and vectors [content attribute, cue attribute, noise, …] of D coordinates.

    The "image" is the whole vector with noise where the cue goes, and the cue is the value of the second
    coordinate, which `render` writes over that noise; every coordinate has mean 0 and variance 1/D. So the four
    splits are: NC, the content and no cue; C, both attributes tell the label; RC, the cue's attribute is redrawn,
    independent of the label; RI, the content's is, with all the noise. RC and RI are the paper's two
    interventions on the test set.

    `predictive` says which attributes tell the label in the training samples; the other is redrawn there,
    independent of the label, as in the paper's counterfactual training sets. Nothing else differs: the test
    samples, and all else of the training samples, are the same to the bit. Where the cue alone is predictive,
    the held-out sets, which carry no cue, tell nothing of the label: such data are for pretraining.

    A cue code is 1 plus the coordinate's value, which lies within ±√(3/D), so that it is positive.
    """

    class Config(BaseConfig):
        """The paper's sizes; it does not say its margin."""

        content: int = Field(4, ge=0, multiple_of=2, description="complexity K of the attribute in place of an image")
        cue: int = Field(0, ge=0, multiple_of=2, description="complexity K of the cue's attribute")
        predictive: Literal["both", "content", "cue"] = Field(
            "both", description="attributes that tell the label in the training samples"
        )
        margin: float = Field(0.25, ge=0, lt=0.5, description="δ, half the width of a slab where slabs are 1 apart")
        dimensions: int = Field(128, ge=4, description="D, coordinates of a sample")
        train_samples: int = Field(
            55_000, ge=2, description="training samples; by default 2,500 are held out twice, which leaves 50,000"
        )
        test_samples: int = Field(10_000, ge=1, description="test samples")
        data_seed: int = Field(0, ge=0, description="what the samples are drawn from, whatever the run's seed")

    config: Config
    num_classes = 2
    train: LabelledImages
    test: LabelledImages

    def load(self, sources: ImageSources) -> None:
        """Draw all samples; those of the test set first, and what is redrawn last, so that variants share the rest."""
        c = self.config
        self._content, self._cue = (Attribute(complexity, c.margin, c.dimensions) for complexity in (c.content, c.cue))
        generator = torch.Generator().manual_seed(c.data_seed)
        self.test = self._samples(c.test_samples, generator)
        self.train = self._samples(c.train_samples, generator)
        if c.predictive == "cue":
            in_memory(self.train.images)[:, CONTENT] = self._random(self._content, c.train_samples, generator).float()
        elif c.predictive == "content":
            self.train = self.train.with_cues(self.random_cue(c.train_samples, generator))

    def _samples(self, n: int, generator: torch.Generator) -> LabelledImages:
        labels = torch.randint(2, (n,), generator=generator)
        d = self.config.dimensions
        vectors = torch.randn(n, d, generator=generator) / d**0.5  # (n, D)
        vectors[:, CONTENT] = self._content.draw(labels, generator).float()
        return LabelledImages(vectors, labels, self._codes(self._cue.draw(labels, generator)))

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` draws of the cue's attribute for labels drawn uniformly."""
        return self._codes(self._random(self._cue, n, generator))

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, D) with the cue's value in the second coordinate."""
        value = (cue - 1).to(images.dtype)
        return torch.cat([images[:, :CUE], value[:, None], images[:, CUE + 1 :]], dim=1)

    @staticmethod
    def _random(attribute: Attribute, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return an attribute of hidden random labels, float64 of shape (n,)."""
        return attribute.draw(torch.randint(2, (n,), generator=generator), generator)

    @staticmethod
    def _codes(values: torch.Tensor) -> torch.Tensor:
        return (1 + values).float()

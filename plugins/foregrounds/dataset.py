"""Cut-outs on scenes: the scene is the cue."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BeforeValidator, Field

from mmc_bench import BaseConfig
from mmc_bench.data.contract import ImageSources, LabelledImages
from mmc_bench.data.stored import Images, rows_of

from .layout import PARTS, Pictures
from .placement import AT_ONCE, Placement, blurred
from .visibility import check_seen

Factor = Annotated[float, Field(ge=0.1, le=4)]


def _two_numbers(scale: Any) -> Any:
    if not isinstance(scale, (list, tuple)) or len(scale) != 2:
        raise ValueError("two numbers are wanted, the least and the largest factor")
    return scale


def _in_order(scale: tuple[float, float]) -> tuple[float, float]:
    if scale[0] > scale[1]:
        raise ValueError("the least factor comes first, and then the largest")
    return scale


Scale = Annotated[tuple[Factor, Factor], BeforeValidator(_two_numbers), AfterValidator(_in_order)]


class Foregrounds:
    """Cut-outs of your own on scenes of your own, as ``foregrounds.yaml`` pairs them.

    The cue of an image is a scene behind the cut-out. Its own one is of its class: the scenes of a class are put in a
    random order and used in turn, so that none is used twice before all are used once. RC draws from all scenes alike,
    and without a cue the ground is neutral. Test images have test scenes alone, and training images training scenes.

    A cue code is a row of all scenes, the training ones first. Images are stored in their places, with their opacity as
    a fourth channel; `render` lays them over scenes, and the network sees three channels.

    By default each part has as many cut-outs, and as many scenes, of each class. With more of one class, a network that
    reads nothing is right more often than cue reliance takes for chance; and with more scenes of one, so is on RC a
    network that reads nothing but the scene.
    """

    class Config(BaseConfig):
        """Size and ground of pictures, and where on them cut-outs lie; by default as in their files."""

        size: int = Field(64, ge=8, le=1024, description="height and width of a picture, in pixels")
        ground: Literal["grey", "blur", "noise"] = Field(
            "grey",
            description="what is behind cut-outs without a cue, for all the same: middle grey; the mean of training "
            "scenes, each class alike, blurred by an eighth of the side; or random pixels of training scenes",
        )
        scale: Scale = Field((1, 1), description="least and largest factor of a cut-out's size")
        shift: float = Field(
            0, ge=0, le=0.5, description="how far a cut-out moves at most each way, as a share of the side"
        )
        soften: float = Field(0, ge=0, le=32, description="width of the fading edge, in pixels")
        balanced: bool = Field(
            True, description="leave cut-outs and scenes out at random, until a part has as many of each class"
        )
        data_seed: int = Field(0, ge=0, description="what is drawn in loading follows from it, in all runs")

    config: Config
    source = "foregrounds"
    num_classes: int
    clean_images: int
    validation_images: int
    train: LabelledImages
    test: LabelledImages

    def load(self, sources: ImageSources) -> None:
        """Decode cut-outs and scenes, put the cut-outs in their places, and draw a scene for each."""
        found = sources.listing(self.source)
        self.num_classes = found.num_classes
        side = (self.config.size, self.config.size)
        cutouts, scenes_of = self._chosen(found.cutouts), self._chosen(found.scenes)
        images = {
            part: sources.decode(self.source, each.names, side, channels=4, masks=each.masks, fit="contain")
            for part, each in cutouts.items()
        }
        names = [name for part in PARTS for name in scenes_of[part].names]
        scenes = sources.decode(self.source, names, side, fit="cover")
        self._fill(images, cutouts, scenes, scenes_of, found.root)

    def _chosen(self, pictures: Mapping[str, Pictures]) -> Mapping[str, Pictures]:
        """Return the cut-outs or scenes of each part that are used."""
        if not self.config.balanced:
            return pictures
        return {part: balanced(each, self.config.data_seed) for part, each in pictures.items()}

    def _fill(
        self,
        images: Mapping[str, Images],
        cutouts: Mapping[str, Pictures],
        scenes: Images,
        scenes_of: Mapping[str, Pictures],
        root: Path,
    ) -> None:
        """Set all members from the decoded cut-outs (N, 4, H, W) of each part, and the scenes of both (M, 3, H, W).

        Raises
        ------
        UserError
            When a cut-out, which lies below `root`, is not seen, or no scene is seen behind it.
        """
        c = self.config
        self._scenes, self._first_test = scenes, len(scenes_of["train"].names)
        self._scene_labels = torch.tensor([label for part in PARTS for label in scenes_of[part].labels])  # (M,)
        generator = torch.Generator().manual_seed(c.data_seed)
        if not hasattr(self, "clean_images"):
            self.clean_images = self.validation_images = max(len(cutouts["train"].names) // 8, 2)
        parts = []
        for part, first in zip(PARTS, (0, self._first_test), strict=True):
            labels = torch.tensor(cutouts[part].labels)
            placed = self._placement(len(labels), generator).placed(images[part])
            check_seen(images[part], placed, root, cutouts[part])
            own = own_scenes(labels, torch.tensor(scenes_of[part].labels), generator)
            parts.append(LabelledImages(placed, labels, first + own))
        self.train, self.test = parts
        self._ground = self._neutral(torch.tensor(scenes_of["train"].labels), generator)

    def _placement(self, n: int, generator: torch.Generator) -> Placement:
        """Draw where `n` cut-outs lie."""
        least, largest = self.config.scale
        scale = least + (largest - least) * torch.rand(n, generator=generator)
        shift = self.config.shift * (2 * torch.rand(n, 2, generator=generator) - 1)
        return Placement(scale, shift, self.config.soften)

    def _neutral(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the ground without a cue, (3, H, W) in [-1, 1]; `labels` are those of the training scenes."""
        size = self.config.size
        if self.config.ground == "noise":
            some = rows_of(self._scenes, torch.randint(len(labels), (AT_ONCE,), generator=generator))
            pixels = some.permute(1, 0, 2, 3).flatten(1)  # (3, 256 H W)
            picture = pixels[:, torch.randint(pixels.shape[1], (size * size,), generator=generator)].view(3, size, size)
            return picture / 127.5 - 1
        if self.config.ground == "blur":
            mean = torch.stack([_mean(self._scenes, rows) for rows in map(labels.eq, labels.unique())]).mean(0)
            return (blurred(mean[None], size / 8)[0] / 127.5 - 1).clamp(-1, 1)  # rounding may lead beyond white
        return torch.zeros(3, size, size)

    def random_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` test scenes drawn uniformly, whatever their class."""
        return torch.randint(self._first_test, len(self._scenes), (n,), generator=generator)

    def random_train_cue(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return `n` training scenes drawn uniformly, whatever their class."""
        return torch.randint(self._first_test, (n,), generator=generator)

    def cue_groups(self, cues: torch.Tensor) -> torch.Tensor:
        """Return the class of each scene."""
        return self._scene_labels.to(cues.device)[cues]

    def render(self, images: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
        """Return pictures (n, 3, H, W) of cut-outs (n, 4, H, W) on the scenes of their cues."""
        if isinstance(self._scenes, torch.Tensor) and self._scenes.device != images.device:
            self._scenes = self._scenes.to(images.device)  # moved once, not with every batch
        scenes = rows_of(self._scenes, cue).to(images.dtype)
        return laid_over(scenes.mul(2 / 255).sub(1), images)

    def without_cue(self, images: torch.Tensor) -> torch.Tensor:
        """Return pictures (n, 3, H, W) of cut-outs (n, 4, H, W) on the neutral ground."""
        if self._ground.device != images.device:
            self._ground = self._ground.to(images.device)
        return laid_over(self._ground.to(images.dtype).expand(len(images), -1, -1, -1), images)


class CatDogScenes(Foregrounds):
    """Cats in forests and dogs by the sea: cut-outs of Tiny ImageNet on scenes of Intel's image classification.

    Cut-outs keep the place that they have in their photograph: many touch its border, and would show a straight cut
    anywhere else. 417 cats and 1,021 dogs are for training, 109 and 250 for testing, of which by default as many dogs
    as cats are used. There are as many forests as seas.
    """

    source = "catdog-scenes"
    clean_images = 100
    validation_images = 100


def balanced(pictures: Pictures, seed: int) -> Pictures:
    """Return as many pictures of each class as the rarest has, drawn at random, in their order."""
    labels = torch.tensor(pictures.labels)
    generator, least = torch.Generator().manual_seed(seed), int(labels.bincount().min())
    rows = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    kept = (
        torch.cat([own[torch.randperm(len(own), generator=generator)[:least]] for own in rows]).sort().values.tolist()
    )
    masks = pictures.masks and tuple(pictures.masks[row] for row in kept)
    return Pictures(names=tuple(pictures.names[row] for row in kept), labels=tuple(labels[kept].tolist()), masks=masks)


def laid_over(ground: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return images (n, 4, H, W), all channels in [-1, 1], over ground (n, 3, H, W): α image + (1 - α) ground."""
    return torch.lerp(ground, images[:, :3], images[:, 3:].add(1).div(2))


def own_scenes(labels: torch.Tensor, scene_labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a row of the scenes for each image (N,): those of its class, in a random order, in turn."""
    rows = torch.empty_like(labels)
    for label in labels.unique():
        images, scenes = ((each == label).nonzero()[:, 0] for each in (labels, scene_labels))
        scenes = scenes[torch.randperm(len(scenes), generator=generator)]
        rows[images] = scenes[torch.arange(len(images)) % len(scenes)]
    return rows


def _mean(images: Images, chosen: torch.Tensor) -> torch.Tensor:
    """Return the mean (C, H, W) of the chosen of the first images, which a mask (M,) tells."""
    total = torch.zeros(images.shape[1:])
    for rows in chosen.nonzero()[:, 0].split(AT_ONCE):
        total += rows_of(images, rows).float().sum(0)
    return total / chosen.sum()

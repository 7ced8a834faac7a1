"""A folder of tiny cut-outs and scenes, its description, and the dataset that reads it."""

import numpy as np
import yaml
from PIL import Image

from mmc_bench.data.sources import Sources
from mmc_bench.plugin.registry import Registry

SIDE = 16
CUTOUTS = {"owl": 15, "ant": 10}
SCENES = {"night": 10, "dusk": 5, "grass": 10}
PAIRS = {"owl": ["night", "dusk"], "ant": "grass"}
LABELS = {"ant": 0, "owl": 1}


def write_images(root, seed=0):
    """Write cut-outs of two classes, a soft-edged disc each, and scenes of three kinds, noise about a level."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    for name, count in CUTOUTS.items():
        (root / "cutouts" / name).mkdir(parents=True)
        for number in range(count):
            row, column = rng.uniform(5, 11, 2)
            opacity = np.clip(5 - np.hypot(y - row, x - column), 0, 1) * 255
            pixels = np.dstack([rng.integers(256, size=(SIDE, SIDE, 3)), opacity.round()]).astype(np.uint8)
            Image.fromarray(pixels).save(root / "cutouts" / name / f"{number:02}.png")
    for level, (name, count) in enumerate(SCENES.items()):
        (root / "scenes" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(80 * level, 80 * level + 80, size=(SIDE, SIDE, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "scenes" / name / f"{number:02}.png")


def describe(root, **changes):
    """Write the description, with these keys in place of its own; None leaves one out."""
    content = {
        "cutouts": {name: f"cutouts/{name}" for name in CUTOUTS},
        "scenes": {name: f"scenes/{name}" for name in SCENES},
        "pairs": PAIRS,
        **changes,
    }
    content = {key: value for key, value in content.items() if value is not None}
    (root / "foregrounds.yaml").write_text(yaml.safe_dump(content))


def described_images(root):
    """Write images and their description, and return the folder."""
    write_images(root)
    describe(root)
    return root


def drop(folder, *names):
    for name in names:
        for file in sorted(folder.glob(name)):
            file.unlink()


def offer_of(name="foregrounds"):
    return Registry.discover().get("dataset", name)


def sources_of(folder, memory=2**30, name="foregrounds"):
    offer = offer_of(name)
    return Sources({name: str(folder)}, layouts={name: offer.layout(name)}, memory=memory)


def found_in(folder):
    return sources_of(folder).listing("foregrounds")


def loaded(folder, memory=2**30, **parameters):
    """Return the dataset of a folder, with all of its images unless `balanced` is given."""
    offer = offer_of()
    dataset = offer.make(offer.configure({"size": SIDE, "balanced": False, **parameters}))
    dataset.load(sources_of(folder, memory))
    return dataset


def pixels_of(path):
    return np.asarray(Image.open(path))

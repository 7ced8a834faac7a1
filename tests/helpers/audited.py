"""Images for audits."""

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "<img src=x onerror=alert(1)>")


def write_images(root, train=40, test=12, side=16):
    """Write images of noise: there is nothing to learn in them but a cue."""
    rng = np.random.default_rng(0)
    for part, n in (("train", train), ("test", test)):
        for name in CLASSES:
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(n):
                pixels = rng.integers(100, 150, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root

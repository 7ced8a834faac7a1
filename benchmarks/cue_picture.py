"""The README's picture of a cue: ``python -m benchmarks.cue_picture`` draws the same digits on the four splits."""

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from mmc_bench.data.cued_images import CuedImages
from mmc_bench.data.sources import Sources
from mmc_bench.data.splits import derive_experiment
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.jobs import DataSettings

FOLDER = Path(__file__).parent / "figures"
LABELS = (0, 2, 4, 5, 6, 7)  # of ten: enough to see the rule, few enough to see the pixels
SEED = 2  # its digits are easy to read

# Lengths are pixels of the picture, which is shown at half its size.
WIDTH, MARGIN, TILE, GAP = 1500, 36, 128, 14  # a tile is 16 pixels, each eight wide
TOP, IMAGES_LEFT = 252, 420
RIGHT = IMAGES_LEFT + len(LABELS) * (TILE + GAP) + 16

ROWS = {
    "NC": ("no cue", "the image alone", "high"),
    "C": ("cue", "each image with its own label's cue", "like NC"),
    "RC": ("randomised cue", "image and label stay, the cue is random", "like NC"),
    "RI": ("randomised image", "cue and label stay, the image is random", "at chance"),
}


@dataclass(frozen=True)
class Theme:
    """Colours of one version of the picture; `splits` are Okabe and Ito's, lightened on a dark ground."""

    ground: str
    text: str
    muted: str
    line: str
    cue: str
    splits: tuple[str, str, str, str]


THEMES = {
    "light": Theme("#f6f8fa", "#1f2328", "#59636e", "#d1d9e0", "#e60000", ("#0072B2", "#007a5a", "#9a6700", "#c04f00")),
    "dark": Theme("#151b23", "#f0f6fc", "#9198a1", "#3d444d", "#ff2a2a", ("#56B4E9", "#2fc89b", "#E69F00", "#ff8a4c")),
}


def main() -> None:
    """Write the picture for light and for dark pages."""
    images = tiles()
    for name, theme in THEMES.items():
        path = FOLDER / f"cue-{name}.png"
        draw(images, theme).savefig(path, dpi=100, transparent=True, metadata={"Software": None})
        print(path)


def tiles() -> dict[str, torch.Tensor]:
    """Return, for each split, one test image of each label as the network sees it, (6, 16, 16, 3) in [0, 1].

    An image is the first of its label whose random cue and random image are of another label, since where they are
    of its own, by chance, the four splits show nothing.
    """
    dataset = Registry.discover().get("dataset", "digits-box").load()()
    dataset.load(Sources({}, download=False))
    splits = derive_experiment(dataset, DataSettings(), cue_rate=1.0, seed=SEED).splits
    rows = torch.stack([_row(splits, label) for label in LABELS])
    return {name: ((images.batch(rows)[0] + 1) / 2).permute(0, 2, 3, 1) for name, images in splits.items()}


def _row(splits: dict[str, CuedImages], label: int) -> torch.Tensor:
    own, random_cue = splits["NC"].labels == label, splits["RC"].cues
    shown = dict(zip(splits["NC"].index.tolist(), splits["NC"].labels.tolist(), strict=True))
    random_image = torch.tensor([shown[index] for index in splits["RI"].index.tolist()])
    telling = own & (random_cue != label) & (random_cue < 9) & (random_image != label)
    return telling.nonzero()[0, 0]


def draw(images: dict[str, torch.Tensor], theme: Theme) -> Figure:
    """Return the picture: a row for each split, a column for each label, the rule of the cue above."""
    height = TOP + len(ROWS) * (TILE + GAP) + MARGIN - GAP
    figure = Figure(figsize=(WIDTH / 100, height / 100))
    figure.patch.set_alpha(0)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    card = FancyBboxPatch(
        (3, 3), WIDTH - 6, height - 6, "round,pad=0,rounding_size=24", fc=theme.ground, ec=theme.line, lw=1.5
    )
    axes.add_patch(card)
    _draw_rule(axes, theme)
    _write(axes, RIGHT, TOP - 24, "wanted", theme.muted, 21)
    for column, label in enumerate(LABELS):
        centre = IMAGES_LEFT + column * (TILE + GAP) + TILE / 2
        _write(axes, centre, TOP - 24, f"label {label}", theme.muted, 21, ha="center")
    for row, (split, colour) in enumerate(zip(ROWS, theme.splits, strict=True)):
        _draw_row(axes, TOP + row * (TILE + GAP), split, images[split], colour, theme)
    return figure


def _draw_rule(axes: Axes, theme: Theme) -> None:
    """Draw what the cue says: the nine places of the box, each with its label, and two sentences."""
    side, step, box = 150, 50, 26
    axes.add_patch(Rectangle((MARGIN, MARGIN), side, side, fc="black", ec=theme.line, lw=1.5))
    for place in range(9):
        left, top = MARGIN + place % 3 * step + 12, MARGIN + place // 3 * step + 12
        axes.add_patch(Rectangle((left, top), box, box, fc=theme.cue, ec="none"))
        _write(axes, left + box / 2, top + box / 2, str(place), "white", 14, ha="center", weight="bold")
    left = MARGIN + side + 34
    _write(axes, left, 62, "The cue: a red box whose position gives the label", theme.text, 30, weight="bold")
    _write(axes, left, 112, "Most training images carry it. Label 9 has no box.", theme.muted, 23)
    _write(
        axes, left, 150, "A model that reads the box and not the digit is wrong on RC and right on RI.", theme.muted, 23
    )


def _draw_row(axes: Axes, top: int, split: str, images: torch.Tensor, colour: str, theme: Theme) -> None:
    title, meaning, wanted = ROWS[split]
    middle = top + TILE / 2
    axes.add_patch(Rectangle((MARGIN, top), 7, TILE, fc=colour, ec="none"))
    _write(axes, MARGIN + 26, middle - 26, split, colour, 34, weight="bold")
    _write(axes, MARGIN + 104, middle - 24, title, theme.text, 25)
    words = meaning.split()
    lines = (meaning,) if len(meaning) < 24 else (" ".join(words[:4]), " ".join(words[4:]))
    for number, line in enumerate(lines):
        _write(axes, MARGIN + 26, middle + 16 + 29 * number, line, theme.muted, 21)
    for column, image in enumerate(images):
        left = IMAGES_LEFT + column * (TILE + GAP)
        extent = (left, left + TILE, top + TILE, top)
        axes.imshow(image.numpy(), interpolation="nearest", extent=extent, aspect="auto", zorder=2)
        axes.add_patch(Rectangle((left, top), TILE, TILE, fc="none", ec=theme.line, lw=1, zorder=3))
    _write(axes, RIGHT, middle, wanted, theme.text, 24, weight="bold")


def _write(axes: Axes, x: float, y: float, text: str, colour: str, pixels: float, **style: str) -> None:
    axes.text(x, y, text, color=colour, fontsize=pixels * 0.72, va="center", **style)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

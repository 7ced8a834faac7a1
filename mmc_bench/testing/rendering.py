"""What is asked of a dataset's pictures, with and without cues."""

from collections.abc import Callable

import torch

from mmc_bench.testing.checks import Fault

#: Of how many images of noise a cue has to change the same pixels.
NOISE_IMAGES = 32

#: The share of an image that one cue may change: a pair of images on top of each other has the most.
LARGEST_REGION = 0.5

#: By how much a pixel of a cut-out may differ from what it is in the image.
ROUNDING = 1e-5

#: Draws images (n, …) with these cue codes, of which negative ones mean no cue.
Render = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def noise_like(images: torch.Tensor, n: int) -> torch.Tensor:
    """Return noise of the images' shape in [-1, 1], in which no pixel equals another by chance."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, *images.shape[1:], generator=generator, dtype=images.dtype) * 2 - 1


def check_inputs_kept(render: Render, x: torch.Tensor, cues: torch.Tensor, place: str) -> None:
    """Neither images nor cue codes are changed in place."""
    images, codes = x.clone(), cues.clone()
    render(images, codes)
    for what, before, after in (("images", x, images), ("cue codes", cues, codes)):
        if not torch.equal(before, after):
            raise Fault(
                f"render changes the {what} that it is given ({place})",
                "write into a copy: images = images.clone()",
            )


def check_pure(render: Render, x: torch.Tensor, cues: torch.Tensor, place: str) -> None:
    """The same images and cues give the same pixels, alone or in any batch, whatever torch's generator is at."""
    first = render(x.clone(), cues.clone())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        again = render(x.clone(), cues.clone())
    if not torch.equal(first, again):
        raise Fault(
            f"render gives different pixels the second time ({place})",
            "draw nothing at random in render: what is drawn belongs into the cue's code",
        )
    alone = torch.cat([render(image[None], cue[None]) for image, cue in zip(x, cues, strict=True)])
    if not torch.equal(first, alone):
        raise Fault(
            f"an image's pixels depend on the other images of the batch ({place})",
            "compute nothing over the batch, such as a mean",
        )


def check_without_cue(render: Render, x: torch.Tensor, cues: torch.Tensor, place: str) -> str | None:
    """Without a cue the image is there as it was; what `without_cue` adds around it is the same for all."""
    seen, cued = render(x.clone(), torch.full_like(cues, -1)), render(x.clone(), cues)
    if _are_cut_outs(x, seen):
        return _check_ground(render, x, torch.full_like(cues, -1), place, "without a cue", one_for_all=True)
    if seen.shape != cued.shape:
        raise Fault(
            f"pictures have shape {tuple(cued.shape[1:])} with a cue and {tuple(seen.shape[1:])} without ({place})",
            "let without_cue(images) return pictures of the shape that render returns",
        )
    if seen.shape == x.shape:
        if torch.equal(seen, x):
            return None
        share = (seen != x).float().mean().item()
        raise Fault(
            f"without_cue changes {share:.1%} of the pixels ({place})",
            "leave it out: without a cue, the picture is the image",
        )
    offset = _offset_of(x, seen)
    if offset is None:
        raise Fault(
            f"rendered without a cue, images of {tuple(x.shape[1:])} are not part of {tuple(seen.shape[1:])} ({place})",
            "put the image's own pixels somewhere in what the network sees",
        )
    around = seen.clone()
    around[_window(offset, x)] = 0
    if not torch.equal(around, around[:1].expand_as(around)):
        raise Fault(
            f"without a cue, what surrounds the image differs between images ({place})",
            "let without_cue fill the place of the cue with one value",
        )
    return f"images of {tuple(x.shape[1:])} lie in {tuple(seen.shape[1:])} from {offset} on"


def _window(offset: tuple[int, ...], x: torch.Tensor) -> tuple[slice, ...]:
    return (slice(None), *(slice(start, start + size) for start, size in zip(offset, x.shape[1:], strict=True)))


def _offset_of(x: torch.Tensor, seen: torch.Tensor) -> tuple[int, ...] | None:
    """Return where the images lie within larger ones, or None."""
    if seen.ndim != x.ndim or len(seen) != len(x) or any(s < n for s, n in zip(seen.shape, x.shape, strict=True)):
        return None
    room = [s - n + 1 for s, n in zip(seen.shape[1:], x.shape[1:], strict=True)]
    for offset in torch.cartesian_prod(*map(torch.arange, room)).reshape(-1, len(room)).tolist():
        if torch.equal(seen[_window(tuple(offset), x)], x):
            return tuple(offset)
    return None


def check_confined(render: Render, images: torch.Tensor, cues: torch.Tensor, place: str) -> str:
    """A cue changes the same pixels of every image, in any channel, and at most half of them.

    Noise shows which: there no pixel has the cue's colour already. Of images, no other pixels may change. Images with
    opacity, of which the network sees the colours, are cut-outs; a cue is behind them.

    Parameters
    ----------
    images
        As `render` gets them, of shape (n, C, H, W), or vectors (n, D).
    cues
        A cue code for each label.

    Raises
    ------
    Fault
        When a cue leaves its region, has none, or has one too large; or all cues together cover the image.
    """
    if _are_cut_outs(images, render(images[:1].clone(), cues[:1])):
        return _check_ground(render, noise_like(images, len(cues)), cues, place, "with a cue")
    noise = noise_like(images, NOISE_IMAGES)
    what = "pixels" if images.ndim == 4 else "coordinates"
    regions = []
    for cue in cues.unique(dim=0):
        on_noise = _changed(render, noise, cue)
        region = on_noise[0]
        if not torch.equal(on_noise, region.expand_as(on_noise)) or (_changed(render, images, cue) & ~region).any():
            raise Fault(
                f"the cue {cue.tolist()} changes other {what} of one image than of another ({place})",
                "let the place of a cue depend on its code alone, not on what the image shows",
            )
        if (share := region.float().mean().item()) > LARGEST_REGION:
            raise Fault(
                f"the cue {cue.tolist()} changes {share:.1%} of the {what} ({place})",
                "confine it to a region of at most half the image: outside, images with and without a cue must be "
                "the same",
            )
        regions.append(region)
    covered = torch.stack(regions).any(0)  # (H, W), or (D,)
    if not covered.any():
        raise Fault(f"no cue changes any of the {what} ({place})", "let render draw the cue")
    if covered.all():
        raise Fault(
            f"the cues together change all {what} of the image ({place})",
            "confine them to a region, so that there are pixels that no cue ever changes",
        )
    return f"within {covered.float().mean().item():.1%} of the {what}"


def _are_cut_outs(images: torch.Tensor, seen: torch.Tensor) -> bool:
    """Tell whether images (n, 4, H, W) have opacity as a fourth channel, and are seen as (n, 3, H, W)."""
    return images.ndim == 4 and images.shape[1] == 4 and seen.shape[1:] == (3, *images.shape[2:])


def _check_ground(
    render: Render, x: torch.Tensor, cues: torch.Tensor, place: str, when: str, one_for_all: bool = False
) -> str:
    """Where a cut-out is opaque nothing else is seen, and where it is transparent nothing of it."""
    opaque, clear = (torch.cat([x[:, :3], torch.full_like(x[:, 3:], value)], dim=1) for value in (1, -1))
    if not torch.allclose(render(opaque, cues), x[:, :3], rtol=0, atol=ROUNDING):
        raise Fault(
            f"{when}, opaque pixels are not seen as they are ({place})",
            "let the ground be seen where the image is transparent alone",
        )
    ground = render(clear.clone(), cues)
    if not torch.allclose(ground, render(torch.cat([-x[:, :3], clear[:, 3:]], dim=1), cues), rtol=0, atol=ROUNDING):
        raise Fault(
            f"{when}, the colours of transparent pixels are seen ({place})",
            "weigh the image with its opacity, (1 + its fourth channel) / 2",
        )
    if one_for_all and not torch.equal(ground, ground[:1].expand_as(ground)):
        raise Fault(
            f"{when}, what is behind the image differs between images ({place})",
            "let without_cue show one ground behind all",
        )
    return f"{when}, the ground is seen behind cut-outs"


def _changed(render: Render, x: torch.Tensor, cue: torch.Tensor) -> torch.Tensor:
    """Return where one cue changes each image, of shape (n, H, W), or (n, D)."""
    codes = cue.expand(len(x), *cue.shape)
    changed = render(x.clone(), codes) != render(x.clone(), torch.full_like(codes, -1))
    return changed.any(1) if changed.ndim == 4 else changed


def distinct_cues(render: Render, x: torch.Tensor, codes: torch.Tensor) -> tuple[int, int] | None:
    """Return two rows of `codes` that look the same on noise, or None."""
    noise = noise_like(x, 1)
    seen = render(noise.expand(len(codes), *noise.shape[1:]).clone(), codes).flatten(1)  # (K, P)
    _, first = torch.unique(seen, dim=0, return_inverse=True)
    earlier: dict[int, int] = {}
    for row, picture in enumerate(first.tolist()):
        if picture in earlier:
            return earlier[picture], row
        earlier[picture] = row
    return None

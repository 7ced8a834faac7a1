"""timm's models by name, where their pretrained weights lie, and the input that a network with them expects."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mmc_bench import UserError
from mmc_bench.errors import nearest


def check_model(model: str) -> None:
    """Refuse a name that is none of timm's architectures, or whose tag is none of their pretrained weights.

    Raises
    ------
    UserError
        Which names the nearest names that timm knows.
    """
    import timm

    known = timm.list_models()
    architecture, dot, _ = model.partition(".")
    if dot and architecture in known:
        known = timm.list_models(f"{architecture}.*", pretrained=True)
    if model not in known:
        raise UserError(f"timm has no model {model!r}: {nearest(model, known)}")


def weights_of(parameters: Mapping[str, Any]) -> Path | None:
    """Return the file of a model's pretrained weights, or None for random ones.

    It is the parameter `weights`; else the file in the Hugging Face cache or torch's hub folder, downloaded where it is
    in neither.

    Raises
    ------
    UserError
        When there is no such file, and none can be downloaded; the message says where it was looked for.
    """
    model, given = parameters["model"], parameters.get("weights")
    if parameters.get("init") == "random" or not (given or "." in model):
        if given:
            raise UserError(f"timm/{model}: weights = {given} and init = random contradict each other")
        return None
    if given:
        path = Path(given)
        if not path.is_file():
            raise UserError(f"timm/{model}: there is no file {path}: weights must be one of timm's format")
        return path.resolve()
    check_model(model)
    return _cached(model) or _downloaded(model)


def _cached(model: str) -> Path | None:
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    known = timm.models.get_pretrained_cfg(model)
    if known is None:
        return None
    for name in ("model.safetensors", "pytorch_model.bin"):
        found = known.hf_hub_id and try_to_load_from_cache(known.hf_hub_id, name, cache_dir=constants.HF_HUB_CACHE)
        if isinstance(found, str):
            return Path(found)
    path = _of_hub() / str(known.url).rpartition("/")[2]
    return path if path.is_file() else None


def _of_hub() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _downloaded(model: str) -> Path:
    import timm
    from huggingface_hub import constants, hf_hub_download

    known = timm.models.get_pretrained_cfg(model)
    places = f"{constants.HF_HUB_CACHE} or {_of_hub()}"
    remedy = f"give their file with --set timm/{model}.weights=FILE, or start from random ones with .init=random"
    if known is None or not known.hf_hub_id:
        raise UserError(f"timm names no place to download timm/{model} from, and it is not in {places}: {remedy}")
    try:
        return Path(hf_hub_download(known.hf_hub_id, "model.safetensors", cache_dir=constants.HF_HUB_CACHE))
    except Exception as error:  # of the network, of the hub, or of the disk
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"the weights of timm/{model} are not in {places}, and cannot be downloaded ({reason}): {remedy}"
        ) from None


def with_own_input(network: Any, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Let a network take images in [-1, 1] of any size, in place: they are resized and normalised as it was trained."""
    import torch

    scale, shift = (torch.tensor(values).view(1, -1, 1, 1) for values in _affine(mean, std))
    network.register_buffer("input_scale", scale, persistent=False)
    network.register_buffer("input_shift", shift, persistent=False)
    family: Any = type(network)
    network.__class__ = _resizing(family, size)


def of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return a value for each channel: those given, or their mean where there are more or fewer, as of grey images."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def _affine(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[list[float], list[float]]:
    """Return what turns x in [-1, 1] into ((x + 1) / 2 - mean) / std: a factor and a summand a channel."""
    return [0.5 / s for s in std], [(0.5 - m) / s for m, s in zip(mean, std, strict=True)]


@cache
def _resizing(family: Any, size: tuple[int, int]) -> type[Any]:
    """Return a network's class whose input is resized to `size` (bilinear) and normalised."""
    from torch.nn import functional as F

    def forward_features(self: Any, x: Any, *more: Any, **options: Any) -> Any:
        if tuple(x.shape[-2:]) != size:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return family.forward_features(self, x * self.input_scale + self.input_shift, *more, **options)

    return type(family.__name__, (family,), {"forward_features": forward_features, "__module__": family.__module__})

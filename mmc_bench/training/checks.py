"""What a trained model must be: finite, and of the architecture that it started from."""

from torch import nn

from mmc_bench.errors import UserError


def check_weights(model: nn.Module, whose: str) -> None:
    """Raise a `UserError` that names the first weight or statistic of a model that is NaN or infinite somewhere."""
    for name, values in model.state_dict().items():
        if not values.isfinite().all():
            raise UserError(f"{whose} a model whose weight {name!r} is not finite")


def check_same_architecture(
    start: nn.Module, end: nn.Module, names: tuple[str, str] = ("first model", "second model")
) -> None:
    """Raise a `UserError` that names the first weight in which two models differ in name or shape."""
    first = {name: tuple(value.shape) for name, value in start.state_dict().items()}
    last = {name: tuple(value.shape) for name, value in end.state_dict().items()}
    for name in [*first, *last]:
        if first.get(name) != last.get(name):
            raise UserError(
                f"the {names[1]}'s weight {name!r} has shape {last.get(name)}, the {names[0]}'s "
                f"{first.get(name)}: both must be of the same architecture"
            )

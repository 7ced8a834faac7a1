"""Weight averaging of the pretrained and the fine-tuned model."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register WiSE-FT."""
    register(
        MethodSpec(
            name="wise-ft",
            target=".method:WiSEFT",
            summary="A control: the average of the pretrained and the fine-tuned weights (Wortsman et al., 2022)",
        )
    )

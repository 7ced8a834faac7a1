"""Neural attention distillation."""

from collections.abc import Callable

from mmc_bench import MethodSpec, hookimpl

mmc_bench_api = 1
VERSION = 1


@hookimpl
def register_methods(register: Callable[[MethodSpec], None]) -> None:
    """Register NAD."""
    register(
        MethodSpec(
            name="nad",
            target=".method:NeuralAttentionDistillation",
            summary="Attention maps of a fine-tuned teacher, distilled into the pretrained model (Li et al., 2021)",
        )
    )

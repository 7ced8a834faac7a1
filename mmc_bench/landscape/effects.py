"""By how much interventions on the input change two models, in numbers beside the verdict of definition 4."""

from collections.abc import Mapping

import torch

from mmc_bench.landscape.invariance import INTERVENTIONS
from mmc_bench.results.metrics import Score
from mmc_bench.results.records import Effect
from mmc_bench.system.devices import in_float64


def effects(
    scores: tuple[Mapping[str, Score], Mapping[str, Score]],
    predictions: tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]],
) -> dict[str, Effect]:
    """Return by how much each intervention changes two models, beside the verdicts of `mechanistically_similar`.

    Parameters
    ----------
    scores, predictions
        Of the two models, as they are, by test split; predictions are class indices of shape (N,), and the i-th image
        of each split is the i-th of C under an intervention.
    """
    found = {}
    for name, without, with_it in INTERVENTIONS:
        if not {without, with_it} <= scores[0].keys():
            continue

        def change(what: str, of: Mapping[str, Score], without: str = without, with_it: str = with_it) -> float:
            return float(getattr(of[with_it], what) - getattr(of[without], what))

        flips = [of_model[with_it] != of_model[without] for of_model in predictions]
        shares = in_float64(torch.stack([flips[0], flips[1], flips[0] & flips[1]])).mean(1).tolist()
        found[name] = Effect(
            split=with_it,
            loss_changes=(change("loss", scores[0]), change("loss", scores[1])),
            accuracy_changes=(change("accuracy", scores[0]), change("accuracy", scores[1])),
            flips=(shares[0], shares[1]),
            flips_of_both=shares[2],
        )
    return found

"""What became of the cue in each model, as a report."""

from collections.abc import Sequence

from mmc_bench.mechanisms.verdicts import WORDS
from mmc_bench.report.probed import ProbedModel, ProbedSetting, frame_rows, settings_of
from mmc_bench.report.rows import PRETRAINED, statistic_of
from mmc_bench.report.tables import ABSENT, Report, TextTable, of_seeds, rounded
from mmc_bench.results.probes import Hold


def render(models: Sequence[ProbedModel], form: str) -> str:
    """Return probed models in one of `mmc_bench.report.tables.FORMATS`.

    For people, a table for each setting, with shares in per cent, as mean ± standard deviation over seeds. CSV and JSON
    have a line for each model and each reference, with fractions.
    """
    rows = frame_rows(models)
    words = dict.fromkeys(row["word"] for row in rows if row["word"])
    legend = "; ".join(f"**{word}**: {WORDS[word]}" for word in words)
    return Report(
        blocks=[block for setting in settings_of(models) for block in (_table(setting), _note(setting))] + [legend],
        columns=[*dict.fromkeys(name for row in rows for name in row)],
        lines=rows,
        content=rows,
    ).render(form)


def _table(setting: ProbedSetting) -> TextTable:
    stages = [*setting.models[0].own.read]
    headers = ["method", "word", *(f"read {stage}" for stage in stages), "attribution", "flips", "barrier"]
    lines = [_line(setting, name, holds, stages) for name, holds in setting.holds.items()]
    seeds = " ".join(map(str, setting.seeds))
    note = f"mean ± standard deviation over seeds {seeds}" if len(setting.seeds) > 1 else f"seed {seeds}"
    return TextTable(headers, lines, words=2, title=setting.title, note=note)


def _line(setting: ProbedSetting, name: str, holds: Sequence[Hold], stages: Sequence[str]) -> list[str]:
    models = setting.by_name.get(name, ())
    seeds = [model.experiment.seed for model in models] if models else setting.seeds
    return [
        of_seeds(name, sorted(seeds), setting.seeds),
        setting.words(name) or ABSENT,
        *(_shown([hold.read[stage] for hold in holds]) for stage in stages),
        _shown([hold.attribution for hold in holds]),
        _shown([hold.flips for hold in holds]),
        _shown([model.barrier for model in models], scale=1, digits=2),
    ]


def _note(setting: ProbedSetting) -> str:
    """Return what the columns are of, with the numbers that they are compared with."""
    holds = setting.holds[PRETRAINED]
    what = "whether an image carries its cue" if holds[0].presence else f"which of {holds[0].classes} cues an image has"
    chance, pixels = (_shown([getattr(hold, name) for hold in holds]) for name in ("chance", "cue_pixels"))
    return (
        f"read: accuracy (%) of a linear probe for {what}, chance {chance}; attribution: share (%) of input gradients "
        f"on the cue's pixels, which are {pixels} % of all; flips: predictions (%) that another cue changes; barrier "
        f"(nats) on the straight path from {PRETRAINED}, open up to {setting.models[0].tolerance:g}"
    )


def _shown(values: Sequence[float | None], scale: float = 100, digits: int = 1) -> str:
    value = statistic_of(values) if values else None
    if value is None:
        return ABSENT
    text = rounded(scale * value.mean, digits)
    return text if value.std is None else f"{text} ± {rounded(scale * value.std, digits)}"

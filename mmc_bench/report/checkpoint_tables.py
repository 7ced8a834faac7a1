"""Two checkpoints side by side as a report, whose CSV has every number of the figure."""

from collections import Counter
from collections.abc import Iterator, Sequence

from mmc_bench.landscape.invariance import INTERVENTIONS
from mmc_bench.report.curves import POINT, OwnScores, own_scores_of_pair, points_of
from mmc_bench.report.tables import ABSENT, Report, TextTable, yes_or_no
from mmc_bench.results.records import AlignmentSummary, ConnectionRecord, Connectivity

#: The columns of a path's points.
COLUMNS = ("path", "set", *POINT)


def render(record: ConnectionRecord, splits: Sequence[str], form: str) -> str:
    """Return two checkpoints' comparison in one of `mmc_bench.report.tables.FORMATS`, with these splits' columns.

    The CSV has every point of every curve, and the scores of its ends with their own BatchNorm statistics:
    accuracies as fractions, losses in nats.
    """
    return Report(
        blocks=_blocks(record, splits),
        columns=COLUMNS,
        lines=[
            {"path": name, "set": where, **point}
            for name, where, path, own in _measured(record)
            for point in points_of(path, splits, own)
        ],
        content=record.model_dump(mode="json"),
    ).render(form)


def _blocks(record: ConnectionRecord, splits: Sequence[str]) -> list[str | TextTable]:
    connection, comparison = record.connection, record.comparison
    experiment, settings = connection.experiment, connection.connect
    tolerance = f"{next(iter(comparison.paths.values())).test.tolerance:g} nats"
    return [
        f"**A** {connection.first.label}  \n**B** {connection.second.label}  \n"
        f"{experiment.backbone.name} on {experiment.dataset.name}, seed {experiment.seed}, "
        f"{settings.points} points a path",
        f"Barriers in accuracy (points) / loss (nats) / mode connected (definition 1, tolerance {tolerance}); "
        "mechanistically connected (definition 5) is so on all four splits:",
        _path_table(record, splits),
        *(_of_alignment(name, path.alignment) for name, path in comparison.paths.items() if path.alignment),
        "Accuracy (%) / loss (nats) of the two:",
        _score_table(record, splits),
        f"Invariances (definition 3: an intervention raises the loss by no more than {tolerance}):",
        _invariance_table(record),
        f"Mechanistically similar (definition 4, the same invariances): {yes_or_no(comparison.similar)}",
    ]


def _measured(record: ConnectionRecord) -> Iterator[tuple[str, str, Connectivity, OwnScores]]:
    for name, path in record.comparison.paths.items():
        yield name, "test", path.test, own_scores_of_pair(record.comparison)
        if path.train:
            yield name, "train", path.train, own_scores_of_pair(record.comparison, "training")


def _path_table(record: ConnectionRecord, splits: Sequence[str]) -> TextTable:
    rows = []
    for name, where, path, _ in _measured(record):
        cells = [
            (
                f"{100 * height.accuracy:.1f} / {height.loss:.2f}"
                if (height := path.height(split))
                else f"{ABSENT} / {ABSENT}"
            )
            + f" / {yes_or_no(path.connected(split))}"
            for split in splits
        ]
        label = name if where == "test" else f"{name}, training images"
        rows.append([label, *cells, yes_or_no(path.fully_connected)])
    return TextTable(["path", *splits, "mechanistically connected"], rows)


def _of_alignment(name: str, alignment: AlignmentSummary) -> str:
    moved = [changed for changed, _ in alignment.groups.values()]
    units = sum(size for _, size in alignment.groups.values())
    pinned = Counter(alignment.pinned.values())
    stayed = ", ".join(f"{reason} ({count})" for reason, count in pinned.items()) or "nothing"
    outcome = "computes the same function" if alignment.verified else "does NOT compute the same function"
    return (
        f"{name}: {sum(moved)} of {units} units in {sum(map(bool, moved))} of {len(moved)} groups of A changed places, "
        f"matched by {alignment.matching}; the permuted A {outcome} (largest difference "
        f"{alignment.difference:.1e} of the largest output). Axes of weights that stayed as they were: {stayed}."
    )


def _score_table(record: ConnectionRecord, splits: Sequence[str]) -> TextTable:
    names = [*splits, *(f"train {split}" for split in splits if f"train {split}" in record.comparison.scores)]
    rows = []
    for place, model in enumerate("AB"):
        scores = [record.comparison.scores[name][place] for name in names]
        rows.append([model, *(f"{100 * score.accuracy:.1f} / {score.loss:.2f}" for score in scores)])
    return TextTable(["model", *names], rows)


def _invariance_table(record: ConnectionRecord) -> TextTable:
    rows = []
    for place, found in enumerate(record.comparison.invariance):
        for name, without, _ in INTERVENTIONS:
            if name not in found:
                continue
            one, effect = found[name], record.comparison.effects.get(name)
            flips = ABSENT if effect is None else f"{100 * effect.flips[place]:.1f} / {100 * effect.flips_of_both:.1f}"
            rows.append(
                [
                    "AB"[place],
                    f"{name} ({without} → {one.split})",
                    f"{one.loss_without:.2f}",
                    f"{one.loss_with:.2f}",
                    f"{one.loss_with - one.loss_without:+z.2f}",
                    yes_or_no(one.invariant),
                    f"{100 * one.accuracy_change:+z.1f}",
                    flips,
                ]
            )
    headers = ["model", "intervention", "loss without", "loss with", "change", "invariant"]
    return TextTable([*headers, "change of accuracy (points)", "predictions flipped / in both (%)"], rows, words=2)

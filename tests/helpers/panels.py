"""Records whose every accuracy tells where it belongs, and what a drawn figure shows of them."""

import csv
import io

from helpers.records import cell_record, learnt, pair_record, pretrain_record, with_paths
from mmc_bench.results.metrics import SPLITS
from mmc_bench.results.settings import ConnectSettings

PATHS = ("quadratic", "quadratic-nc", "linear", "permuted")
NAMES = ("quadratic, with cues", "quadratic, without cues", "linear", "linear (permuted)")
RATES = (0.6, 0.8, 1.0)


def value(*parts):
    """Return an accuracy that no other parts have."""
    return round(0.1 + 0.8 * (hash_of(parts) % 997) / 997, 4)


def hash_of(parts):
    return sum((index + 1) * ord(letter) for index, letter in enumerate("/".join(map(str, parts))))


def curves(*parts):
    return {split: [value(*parts, split, t) for t in range(3)] for split in SPLITS}


def pair(rate, seed=0, train=True, paths=PATHS, **changed):
    measured = {name: curves(rate, seed, name) for name in paths}
    on_train = {name: curves("train", rate, seed, name) for name in paths} if train else None
    return pair_record(rate, seed, measured, on_train, **changed)


def cell(rate, method, seed=0, paths=("linear", "permuted"), **changed):
    name = method if isinstance(method, str) else repr(method.parameters)
    record = cell_record(seed, method, cue_rate=rate, connect=ConnectSettings(paths=paths), **changed)
    return with_paths(record, {path: curves(rate, seed, name, path) for path in paths})


def model(rate, seed=0, epochs=3, **changed):
    points = [[value(rate, seed, epoch, part) for part in ("train", "NC", "C")] for epoch in range(epochs)]
    return learnt(pretrain_record(seed, cue_rate=rate, **changed), *points)


def lines_of(text, statistics="re-estimated"):
    """Return the lines of a CSV file; of paths, those with these BatchNorm statistics."""
    return [line for line in csv.DictReader(io.StringIO(text)) if line.get("statistics", statistics) == statistics]


def curves_in(axes):
    """Return the curves of a panel, without marks and the line of chance."""
    return [line for line in axes.get_lines() if line.get_label() in {f"{rate:g}" for rate in RATES}]


def marks_in(axes):
    """Return what stands for checkpoints with their own statistics, by its cue rate's label."""
    marks = {line.get_label(): line for line in axes.get_lines() if line.get_label().endswith(", own")}
    assert all(line.get_linestyle() == "None" and line.get_markerfacecolor() == "none" for line in marks.values())
    return {label: list(zip(*line.get_data())) for label, line in marks.items()}


def only(found):
    (one,) = found
    return one


def grid_of(figure, panels):
    axes = figure.axes
    width = len(panels.columns)
    assert len(axes) == width * len(panels.rows)
    return [axes[start : start + width] for start in range(0, len(axes), width)]

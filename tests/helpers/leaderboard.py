"""A leaderboard in a folder of a test's own, and results to send in, whose numbers follow from one another."""

import json
from datetime import date

from helpers.records import cell_record, connectivity_record, plugin, pretrain_record
from mmc_bench.landscape.invariance import invariances
from mmc_bench.leaderboard.adding import add
from mmc_bench.leaderboard.build import generated_files, stale_files, write_generated
from mmc_bench.leaderboard.checks import inspect
from mmc_bench.leaderboard.protocols import chosen_by
from mmc_bench.leaderboard.standings import make_standings
from mmc_bench.leaderboard.submissions import CHECKSUMS, Board, manifest, pretraining_of, read_entries, sha256_of
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.jobs import Selection, Trial
from mmc_bench.results.metrics import SPLITS, Score
from mmc_bench.results.records import Epoch, PathRecord, PretrainRecord, TrialRecord
from mmc_bench.results.selections import select
from mmc_bench.results.settings import ConnectSettings
from mmc_bench.results.store import Store

SETTINGS = """
title: A board
baseline: acme:base
fewest_seeds: 1
verifiers: [Bob]
tolerances: {same_machine: 0.0, same_code: 0.02, other: 0.1}
test_images: {digits: 100}
"""

VERSIONS = {
    "stages": {"pretrain": ["1"], "fine-tune": ["1"], "score": ["1"], "connect": ["1"]},
    "plugins": {
        "acme:dataset:digits": {"1+abc": {}},
        "acme:dataset:letters": {"1+abc": {}},
        "acme:backbone:net": {"1+abc": {}},
        "acme:method:tune": {"1+abc": {"summary": "tunes", "needs": ["cued"]}, "2+abc": {"needs": []}},
        "acme:method:base": {"1+abc": {"needs": []}},
        "acme:method:other": {"1+abc": {"needs": []}},
        "acme:method:half": {"1+abc": {"needs": []}},
    },
}

PRETRAINED = (0.5, 0.9, 0.4, 0.8)


def model(seed=0, accuracy=PRETRAINED, **changed):
    """Return the record of a pretraining that passes every check."""
    record = pretrain_record(seed, accuracy, **changed)
    curve = (Epoch(train_loss=1, train=0.5, NC=0.5, C=0.5),) * record.pretraining.recipe.epochs
    return _completed(record.model_copy(update={"curve": curve}), record.pretraining)


def cell(seed=0, method="tune", accuracy=(0.9, 0.8, 0.7, 0.2), start=PRETRAINED, seconds=4.0, middle=0.6, **changed):
    """Return the record of a cell that passes every check; `start` are the accuracies of its pretrained model."""
    record = cell_record(seed, method, accuracy, seconds=seconds, connect=ConnectSettings(points=3), **changed)
    ends = zip(SPLITS, start, accuracy, strict=True)
    path = connectivity_record(
        {split: [first, middle, last] for split, first, last in ends}, losses={s: [1.0, 2.0, 1.0] for s in SPLITS}
    )
    return _completed(record.model_copy(update={"paths": {"linear": PathRecord(test=path)}}), record.cell.pretraining)


def _completed(record, pretraining):
    plugins = [pretraining.dataset, pretraining.backbone]
    if not isinstance(record, PretrainRecord):
        plugins.append(record.cell.method)
    provenance = record.provenance.model_copy(
        update={
            "mmc_bench": "1",
            "plugins": {f"{one.distribution}:{one.name}": one.version for one in plugins},
            "packages": {"torch": "2.9"},
        }
    )
    mechanisms = invariances({split: getattr(record.metrics, split) for split in SPLITS})
    return record.model_copy(update={"provenance": provenance, "invariance": mechanisms})


def trial(seed, method, validation, number=0, **changed):
    """Return the record of a trial that passes every check, with these accuracies on validation NC, C, RC and RI."""
    made = cell(seed, method, **changed)
    versions = {stage: made.cell.versions[stage] for stage in ("fine-tune", "score")}
    job = Trial(versions=versions, pretraining=made.cell.pretraining, method=made.cell.method, number=number)
    scores = {split: Score(accuracy=value, loss=1.0) for split, value in zip(SPLITS, validation, strict=True)}
    shared = ("pretraining_key", "pretrained_sha256", "num_classes", "parameters", "timing", "provenance")
    return TrialRecord(key=job.key, trial=job, validation=scores, **{name: getattr(made, name) for name in shared})


def tuning(method, *tried, seeds=(100,), **changed):
    """Return a selection of a method and its trials; `tried` are what each draws and its validation accuracies.

    `method` is a name, or a reference with the parameters that it was given before the search.
    """
    base = plugin(method) if isinstance(method, str) else method
    methods = [base.with_changes(parameters={**base.parameters, **drawn}) for drawn, _ in tried]
    runs = [
        [trial(seed, own, validation, number, **changed) for seed in seeds]
        for number, (own, (_, validation)) in enumerate(zip(methods, tried, strict=True))
    ]
    keys = tuple(tuple(record.key for record in own) for own in runs)
    described = Selection(pretraining=runs[0][0].trial.pretraining, method=base, seeds=tuple(seeds), trials=keys)
    selection = select(described, {"lr": "log-uniform in [0.01, 1]"}, [drawn for drawn, _ in tried], runs)
    return [selection, *(record for own in runs for record in own)]


def tuned_cells(selection, rule, worst, **changed):
    """Return cells of seeds from 0 on, with the parameters that a rule of a selection chose."""
    method = chosen_by(selection)[rule]
    name = selection.key if method.parameters else None
    return [named(record, name) for record in of_seeds(method, worst, **changed)]


def named(record, selection):
    """Return a cell's record that names a selection."""
    return record.model_copy(update={"cell": record.cell.with_changes(selection=selection)})


def of_seeds(method, worst, first=0, **changed):
    """Return a cell for each seed, from `first` on, with these worst-split accuracies."""
    return [cell(seed, method, (0.9, 0.9, value, 0.2), **changed) for seed, value in enumerate(worst, first)]


def write_results(folder, cells, models=None):
    """Write a results folder with cells, selections and trials, and the records of their pretrainings."""
    store = Store(folder)
    store.check_writable()
    for record in cells:
        (store.save_jobless if record.kind == "selection" else store.save)(record)
    for record in _models_of(cells) if models is None else models:
        store.save(record)
    return folder


def _models_of(cells):
    pretrainings = {p.key: p for p in map(pretraining_of, cells)}
    return [model(p.seed, **{name: getattr(p, name) for name in CHANGEABLE}) for p in pretrainings.values()]


CHANGEABLE = ("versions", "dataset", "images", "data", "backbone", "cue_rate", "recipe")


class TestBoard:
    """A leaderboard, and the commands on it as functions."""

    __test__ = False

    def __init__(self, root):
        self.root = root
        self._results = 0
        if not root.exists():
            root.mkdir()
            (root / "leaderboard.yaml").write_text(SETTINGS)
            (root / "versions.yaml").write_text(json.dumps(VERSIONS))

    def counting(self, seeds=(0, 1), rates=(0.9,), **more):
        """List the settings of these cue rates as those that count, with these seeds; `more` are rates by dataset."""
        return self.listing(
            {"dataset": f"acme:{dataset}", "cue_rates": list(own), "seeds": list(seeds)}
            for dataset, own in {"digits": rates, **more}.items()
        )

    def listing(self, settings):
        """List settings as those that count."""
        listed = [{"backbone": "acme:net", **one} for one in settings]
        (self.root / "leaderboard.yaml").write_text(f"{SETTINGS}\nsettings: {json.dumps(listed)}\n")
        return self

    def opened(self):
        return Board.open(self.root)

    def standings(self):
        """Return the standings of the records, all of which must be readable."""
        opened = self.opened()
        entries, problems = read_entries(opened)
        assert problems == []
        return make_standings(entries, opened.settings)

    def send_in(self, *cells, by="Ann", models=None, registry=None, **options):
        """Write results of these cells, and add them."""
        self._results += 1
        results = write_results(self.root.parent / f"{self.root.name}-results{self._results}", cells, models)
        return add(self.opened(), results, registry or Registry([]), by, date(2026, 1, 2), **options)

    def build(self):
        """Write the generated files, and return their contents by name."""
        board = self.opened()
        files = generated_files(board, inspect(board))
        write_generated(board, files)
        return files

    def problems(self):
        """Return what a check says, a line each."""
        board = self.opened()
        inspection = inspect(board)
        found = list(inspection.problems) or stale_files(board, generated_files(board, inspection))
        return [f"{problem.file}: {problem.reason}" for problem in found]

    def files(self, pattern):
        """Return the names of files that match, relative to the board, in order."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern))

    def edit(self, file, change):
        """Let `change` rewrite a record's content, and renew its submission's checksums, as a forger would."""
        path = self.root / file
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content, indent=1) + "\n")
        self.renew(path.parent.parent)

    def renew(self, folder):
        """Write a submission's checksums anew."""
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        files.pop(CHECKSUMS, None)
        (folder / CHECKSUMS).write_bytes(manifest({name: sha256_of(p.read_bytes()) for name, p in files.items()}))


__all__ = [
    "TestBoard",
    "cell",
    "model",
    "named",
    "of_seeds",
    "plugin",
    "trial",
    "tuned_cells",
    "tuning",
    "write_results",
]

"""Builders of records with chosen scores, for tests of what is made from records."""

from dataclasses import replace
from datetime import UTC, datetime

from mmc_bench.landscape.barriers import connectivity
from mmc_bench.landscape.invariance import INTERVENTIONS
from mmc_bench.results.jobs import Cell, Pair, PluginRef, Pretraining
from mmc_bench.results.metrics import SPLITS, Metrics, Score
from mmc_bench.results.records import (
    Barrier,
    CellRecord,
    Comparison,
    Connectivity,
    Curve,
    Epoch,
    Invariance,
    PairRecord,
    PathRecord,
    PretrainRecord,
    Provenance,
    Timing,
)
from mmc_bench.results.settings import ConnectSettings, DataSettings, Recipe

CELL_VERSIONS = {"fine-tune": "1", "score": "1", "connect": "1"}


def plugin(name, version="1+abc", distribution="acme", **parameters):
    return PluginRef(name=name, distribution=distribution, version=version, parameters=parameters)


def pretraining(seed=0, **changed):
    """Return a pretraining as plain data; `changed` are fields that differ from the usual ones."""
    usual = {
        "versions": {"pretrain": "1", "score": "1"},
        "dataset": plugin("digits"),
        "images": {"digits": "original"},
        "data": DataSettings(),
        "backbone": plugin("net"),
        "cue_rate": 0.9,
        "recipe": Recipe(epochs=2),
    }
    return Pretraining(seed=seed, **{**usual, **changed})


def pretrain_record(seed=0, accuracy=(0.5, 0.9, 0.4, 0.8), seconds=9.0, num_classes=10, **changed):
    """Return the record of a pretraining with these accuracies on NC, C, RC and RI."""
    done = pretraining(seed, **changed)
    return PretrainRecord(
        key=done.key,
        pretraining=done,
        num_classes=num_classes,
        weights_sha256="0" * 64,
        metrics=_metrics(accuracy),
        invariance={},
        curve=(),
        timing=_timing(data=1.0, pretrain=seconds, score=1.0),
        provenance=_provenance(seed),
    )


def cell_record(
    seed=0,
    method="tune",
    accuracy=(0.9, 0.8, 0.7, 0.2),
    barriers=(0.3, 0.1),
    seconds=4.0,
    num_classes=10,
    connect=None,
    stages=None,
    **changed,
):
    """Return the record of a cell; `barriers` are those in loss on C and NC, `method` a name or a reference.

    `stages` are versions of stages that differ from the usual ones.
    """
    method = plugin(method) if isinstance(method, str) else method
    cell = Cell(
        versions={**CELL_VERSIONS, **(stages or {})},
        pretraining=pretraining(seed, **changed),
        method=method,
        connect=connect or ConnectSettings(),
    )
    heights = dict.fromkeys(SPLITS, 7.0) | {"C": barriers[0], "NC": barriers[1]}
    straight = Connectivity(
        t=(0, 0.5, 1),
        splits=dict.fromkeys(SPLITS, Curve(accuracy=(0.5, 0.5, 0.5), loss=(1, 2, 1))),
        barriers={split: Barrier(accuracy=0, loss=height) for split, height in heights.items()},
        mode_connected=dict.fromkeys(SPLITS, False),
        mechanistically_connected=False,
        tolerance=0.01,
    )
    return CellRecord(
        key=cell.key,
        cell=cell,
        pretraining_key=cell.pretraining.key,
        pretrained_sha256="0" * 64,
        num_classes=num_classes,
        parameters=method.parameters,
        metrics=_metrics(accuracy),
        paths={"linear": PathRecord(test=straight)},
        invariance={},
        timing=_timing(data=1.0, fine_tune=seconds, score=1.0, connect=1.0),
        provenance=_provenance(seed),
    )


def connectivity_record(curves, ts=None, losses=None):
    """Return a measured path; `curves` are accuracies by split, each loss 2 (1 - accuracy) unless `losses` says."""
    losses = {split: [2 * (1 - value) for value in values] for split, values in curves.items()} | (losses or {})
    points = len(next(iter(curves.values())))
    along = {
        split: [Score(accuracy=a, loss=b) for a, b in zip(values, losses[split], strict=True)]
        for split, values in curves.items()
    }
    return connectivity(ts or [index / (points - 1) for index in range(points)], along)


def flat(value=0.9, points=3, **splits):
    """Return curves that are the same at every t, on all splits but those given."""
    return {split: list(splits.get(split, [value] * points)) for split in SPLITS}


def with_paths(record, paths, train=None):
    """Return a cell's record with these paths, and the linear one that it has where there is none among them."""
    return record.model_copy(update={"paths": {**record.paths, **path_records(paths, train)}})


def path_records(paths, train=None):
    """Return paths by name from their curves on test and, by the same names, on training images."""
    train = train or {}
    return {
        name: PathRecord(
            test=connectivity_record(curves), train=connectivity_record(train[name]) if name in train else None
        )
        for name, curves in paths.items()
    }


def invariance_record(*broken):
    """Return what a model is invariant to: all interventions but those that are named."""
    return {
        name: Invariance(
            split=split,
            loss_without=0.5,
            loss_with=1.5 if name in broken else 0.5,
            accuracy_change=0,
            invariant=name not in broken,
        )
        for name, _, split in INTERVENTIONS
    }


def pair_record(
    cue_rate=0.8,
    seed=0,
    paths=None,
    train=None,
    similar=False,
    second=None,
    connect=None,
    distance=None,
    own=None,
    version="1",
    **changed,
):
    """Return the record of a pair: a model of a cue rate, and by default one of rate 0 at the next seed.

    `own` are accuracies of the two models by set (``"NC"``, ``"train NC"``), each loss 2 (1 - accuracy).
    """
    first = pretraining(seed, cue_rate=cue_rate, **changed)
    second = replace(first, **({"cue_rate": 0.0, "seed": seed + 1} if second is None else second))
    paths = {"linear": flat()} if paths is None else paths
    connect = connect or ConnectSettings(paths=tuple(paths))
    pair = Pair(versions={"connect": version}, first=first, second=second, data=first, connect=connect)
    own = dict.fromkeys(SPLITS, (0.9, 0.9)) | (own or {})
    scores = {name: tuple(Score(accuracy=a, loss=2 * (1 - a)) for a in ends) for name, ends in own.items()}
    mechanisms = invariance_record("randomise cue"), invariance_record(*(["randomise cue"] if similar else []))
    return PairRecord(
        key=pair.key,
        pair=pair,
        weights_sha256=("0" * 64, "0" * 64),
        num_classes=10,
        comparison=Comparison(
            scores=scores,
            invariance=mechanisms,
            similar=similar,
            paths=path_records(paths, train),
            pattern_distance=distance,
        ),
        timing=_timing(data=1.0, connect=1.0),
        provenance=_provenance(seed),
    )


def learnt(record, *epochs):
    """Return a pretraining's record with this learning curve: for each epoch accuracies in training, on NC, on C."""
    curve = tuple(Epoch(train_loss=1, train=train, NC=nc, C=c) for train, nc, c in epochs)
    return record.model_copy(update={"curve": curve})


def _metrics(accuracy):
    scores = {split: Score(accuracy=value, loss=1.0) for split, value in zip(SPLITS, accuracy, strict=True)}
    return Metrics(**scores, train=Score(accuracy=1, loss=0.1), validation=Score(accuracy=0.9, loss=0.3))


def _timing(**seconds):
    return Timing(started=datetime(2024, 1, 1, tzinfo=UTC), seconds=seconds)


def _provenance(seed):
    return Provenance(
        mmc_bench="0",
        python="3",
        packages={},
        plugins={},
        git_commit=None,
        git_dirty=None,
        platform="any",
        device="cpu",
        precision="fp32",
        threads=1,
        seeds={"experiment": seed},
    )

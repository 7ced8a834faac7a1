"""Builders of records with chosen scores, for tests of what is made from records."""

from datetime import UTC, datetime

from mmc_bench.cells import Cell, ConnectSettings, DataSettings, PluginRef, Pretraining, Recipe
from mmc_bench.records import (
    SPLITS,
    Barrier,
    CellRecord,
    Connectivity,
    Curve,
    Metrics,
    PretrainRecord,
    Provenance,
    Score,
    Timing,
)


def plugin(name, version="1+abc", distribution="acme", **parameters):
    return PluginRef(name=name, distribution=distribution, version=version, parameters=parameters)


def pretraining(seed=0, **changed):
    """Return a pretraining as plain data; `changed` are fields that differ from the usual ones."""
    usual = {
        "core": "1+core",
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
    **changed,
):
    """Return the record of a cell; `barriers` are those in loss on C and NC, `method` a name or a reference."""
    method = plugin(method) if isinstance(method, str) else method
    cell = Cell(pretraining=pretraining(seed, **changed), method=method, connect=connect or ConnectSettings())
    heights = dict.fromkeys(SPLITS, 7.0) | {"C": barriers[0], "NC": barriers[1]}
    return CellRecord(
        key=cell.key,
        cell=cell,
        pretraining_key=cell.pretraining.key,
        pretrained_sha256="0" * 64,
        num_classes=num_classes,
        parameters=method.parameters,
        metrics=_metrics(accuracy),
        connectivity=Connectivity(
            t=(0, 0.5, 1),
            splits=dict.fromkeys(SPLITS, Curve(accuracy=(0.5, 0.5, 0.5), loss=(1, 2, 1))),
            barriers={split: Barrier(accuracy=0, loss=height) for split, height in heights.items()},
            mode_connected=dict.fromkeys(SPLITS, False),
            mechanistically_connected=False,
            tolerance=0.01,
        ),
        invariance={},
        timing=_timing(data=1.0, fine_tune=seconds, score=1.0, connect=1.0),
        provenance=_provenance(seed),
    )


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

"""A small leaderboard as the page gets it, and a name that would do harm where it is not escaped."""

SPLITS = ("NC", "C", "RC", "RI")
HOSTILE = "<img src=x onerror=\"window.hacked='img'\"></script><script>window.hacked='script'</script>'\"\u202egnp&amp;"
HOSTILE_SHOWN = HOSTILE.replace("\u202e", "⟨U+202E⟩")


def curves(rise):
    t = [0.0, 0.25, 0.5, 1.0]
    splits = {
        split: {"accuracy": [0.5 + 0.1 * k * point for point in t], "loss": [rise * (1 + k) * point**2 for point in t]}
        for k, split in enumerate(SPLITS)
    }
    return {"t": t, "splits": splits}


def row(identity, setting, method, worst, tier, **others):
    values = {split: [worst + 0.01 * k, 0.02] for k, split in enumerate(SPLITS)}
    values |= {"worst_split": [worst, 0.031], "cue_reliance": [1 - worst, 0.04], "seconds": [10 * worst, None]}
    return {
        "id": identity,
        "setting": setting,
        "protocol": "published",
        "method": method,
        "note": "",
        "summary": f"What {method} does.",
        "needs": ["clean"],
        "tier": tier,
        "pretrained": False,
        "seeds": [0, 1, 2],
        "values": values | {"barrier_C": [0.5, 0.1], "barrier_NC": None},
        "paired": {"baseline": "naive", "difference": [worst - 0.5, 0.02], "seeds": [0, 1, 2], "same_start": True},
        "gap": None,
        "given": {},
        "tuning": None,
        "standing": "reported",
        "by": "A. Author",
        "verified": None,
        "device": "cpu",
        "precision": "fp32",
        "versions": {"mmc-bench": "0.1.0", "torch": "2.13.0"},
        "curves": curves(1.5),
        "records": [f"results/first/cells/{identity}.json"],
        **others,
    }


def overall(tier, method, protocol="published", **others):
    return {"protocol": protocol, "tier": tier, "method": method, "note": "", "gap": None, **others}


def make_payload():
    """Two settings; in the first three methods in tiers and one that lacks a seed, in the second two."""
    both = ["clean", "cued"]
    reference = {"pretrained": True, "curves": None, "paired": None, "needs": []}
    nothing = dict.fromkeys([*SPLITS, "worst_split", "cue_reliance", "barrier_C", "barrier_NC", "seconds"])
    places = [("s0", "shapes", "small-net", 0.9), ("s1", "letters", "large-net", 0.8)]
    keys = ("id", "dataset", "backbone", "cue_rate")
    return {
        "schema": 2,
        "counted": 2,
        "protocols": {"published": "the authors' own parameters"},
        "protocol": "published",
        "critical": {},
        "settings": [{**dict(zip(keys, place, strict=True)), "note": "", "classes": 10} for place in places],
        "rows": [
            row("r0", "s0", "pretrained", 0.4, None, **reference),
            row(
                "r1",
                "s0",
                "mend",
                0.9,
                1,
                needs=both,
                standing="verified",
                verified={"by": "B. Reader", "cells": 2, "of": 3},
            ),
            row("r2", "s0", "tune", 0.8, 2, given={"lr": "0.001", "batch_size": "64"}),
            row("r3", "s0", "naive", 0.5, 3, paired=None, curves=curves(40.0)),
            row("r4", "s0", "unfinished", 0.0, None, seeds=[0], values=nothing, paired=None, curves=None),
            row("r5", "s1", "pretrained", 0.45, None, **reference),
            row("r6", "s1", "tune", 0.7, 1),
            row("r7", "s1", "mend", 0.6, 2, needs=both),
        ],
        "overall": [
            overall(1, "tune", mean=0.75, half_width=0.02, settings=2, missing=[]),
            overall(None, "mend", mean=None, half_width=None, settings=1, missing=["letters 0.8"]),
        ],
    }


def make_tuned_payload():
    """The first setting with two protocols: rows r0 to r4 as in `make_payload`, r8 to r10 with chosen parameters."""
    payload = make_payload()
    tuning = {
        "trials": 8,
        "close": 3,
        "seeds": [100],
        "space": {"lr": "log-uniform"},
        "chosen": {"lr": "0.1"},
        "selection": "f" * 64,
    }
    rows = [
        row("r8", "s0", "pretrained", 0.4, None, pretrained=True, curves=None, paired=None, needs=[]),
        row("r9", "s0", "tune", 0.95, 1, given={"batch_size": "64"}, tuning=tuning, gap=[0.012, 0.005]),
        row("r10", "s0", "naive", 0.85, 2, tuning=tuning | {"chosen": {}}, paired=None),
    ]
    for one in rows:
        one["protocol"] = "clean"
    picture = {
        "datasets": 2,
        "names": ["tune", "naive", "mend"],
        "ranks": [[1, 2], [2, 1], [3, 3]],
        "average": [1.5, 1.5, 3],
        "p_value": 0.4,
        "difference": 2.3,
        "groups": [[0, 2]],
    }
    return payload | {
        "protocols": {"published": "the authors' own parameters", "clean": "the best on validation NC"},
        "protocol": "clean",
        "rows": payload["rows"] + rows,
        "overall": [
            *payload["overall"],
            overall(1, "tune", "clean", mean=0.95, half_width=0.01, settings=2, missing=[]),
        ],
        "critical": {"clean": picture, "published": picture | {"names": ["mend", "tune", "naive"]}},
    }

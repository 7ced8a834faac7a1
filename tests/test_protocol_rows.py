"""Rows of tuned methods: whose the gap is, and when there is none."""

import pytest
from helpers.records import cell_record, plugin

from mmc_bench.report.protocols import protocol_rows

LEVELS = {"published": 0.5, "clean": 0.4, "counterfactual": 0.8}


def search(seeds, missing=(), given=None, **chosen):
    """Return a search's records by protocol, and which is which; `missing` are (protocol, seed) without a record.

    `chosen` are the parameters by protocol. The worst split is that of `LEVELS`, and .1 higher for each further seed.
    """
    given = given or {}
    records = {
        (protocol, seed): cell_record(
            seed,
            plugin("tune", **given, **chosen.get(protocol, {})),
            accuracy=(level + seed / 10, 1, 1, 0.2),
        )
        for protocol, level in LEVELS.items()
        for seed in seeds
    }
    searched = [{protocol: records[protocol, seed].key for protocol in LEVELS} for seed in seeds]
    found = {
        protocol: [records[protocol, seed] for seed in seeds if (protocol, seed) not in missing] for protocol in LEVELS
    }
    return found, searched


def gaps(*searches):
    """Return the gap of every row by protocol and label."""
    cells = {protocol: [record for found, _ in searches for record in found[protocol]] for protocol in LEVELS}
    unique = {protocol: list({record.key: record for record in own}.values()) for protocol, own in cells.items()}
    rows = protocol_rows(unique, [], [own for _, searched in searches for own in searched])
    return {(row.protocol, row.method): row.gap for row in rows}


CHOSEN = {"clean": {"lr": 0.5}, "counterfactual": {"lr": 0.25}}


def test_the_gap_is_what_the_counterfactual_rule_gains_seed_by_seed():
    found = gaps(search((0, 1), **CHOSEN))
    assert [key[0] for key in found] == list(LEVELS)
    assert {round(gap.mean, 6) for gap in found.values()} == {0.4} and found["clean", "tune"].std == pytest.approx(0)


@pytest.mark.parametrize("protocol", ["clean", "counterfactual"])
def test_a_row_without_a_record_of_each_seed_under_both_rules_has_no_gap(protocol):
    found = gaps(search((0, 1, 2), missing=[(protocol, 1)], **CHOSEN))
    other = {"clean": "counterfactual", "counterfactual": "clean"}[protocol]
    assert found["published", "tune"] is None and found[other, "tune"] is None
    assert found[protocol, "tune"].mean == pytest.approx(0.4)  # its own seeds, which its row names, have both


def test_two_variants_of_a_method_have_a_gap_each():
    found = gaps(*(search((0, 1), given={"steps": steps}, **CHOSEN) for steps in (1, 2)))
    assert len(found) == 6 and all(gap.mean == pytest.approx(0.4) for gap in found.values())


def test_cells_that_two_searches_led_to_have_no_gap_of_their_own():
    found = gaps(search((0,), **CHOSEN), search((0,), given={"lr": 0.5}, counterfactual={"epochs": 9}))
    assert found.pop(("clean", "tune")) is None
    assert len(found) == 4 and all(gap.mean == pytest.approx(0.4) for gap in found.values())

"""The answer of an audit, from findings that are made up: what it says, and what it must not say."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from mmc_bench.auditing.answer import answer
from mmc_bench.auditing.findings import methods_of
from mmc_bench.auditing.page import page_html
from mmc_bench.auditing.schema import (
    AuditProblem,
    AuditReport,
    Cue,
    CueStrength,
    Images,
    MethodSummary,
    Reference,
    Repair,
    SplitAccuracies,
)
from mmc_bench.mechanisms.verdicts import UNKNOWN


def accuracies(all=0.8):
    return SplitAccuracies(NC=all, C=all, RC=all, RI=all)


def strength(fall, word="strong", value=1.0, C=0.8, chance=0.0, **changes):
    picked = fall >= max(0.1, chance)
    found = {"fall": fall, "chance": chance, "picked_up": picked, "unclear": fall >= 0.1 and not picked}
    return CueStrength(word=word, value=value, seeds=(0,), accuracy=accuracies(C), **found, **changes)


def unknown(word="strong", value=1.0):
    return CueStrength(word=word, value=value)


def cue(name, *strengths):
    return Cue(dataset=f"images-{name}", name=name, summary=name, strengths=strengths)


def method(name, flips=None, before=0.4, repaired=1, gain=0.0, **changes):
    own = {} if flips is None else {"flips": flips, "flips_before": before, "gain": gain, "seconds": 1.0}
    return MethodSummary(method=name, summary=name, needs=("clean",), repaired=repaired, **own, **changes)


def report_of(*cues, methods=(), NC=0.8, classes=3, test=1500, largest=None, **changes):
    made = AuditReport(
        made=datetime(2024, 1, 1, tzinfo=UTC),
        mmc_bench="1",
        backbone="net",
        images=Images(
            folders=("images",), classes=classes, largest_class=largest or 1 / classes, test=test, size=(32, 32)
        ),
        cue_rate=0.8,
        strength="relative_strength",
        epochs=6,
        seeds=(0,),
        path_points=3,
        reference=Reference(NC=NC, seeds=(0,)),
        cues=cues,
        methods=methods,
        **changes,
    )
    return made.model_copy(update={"answer": answer(made)})


def said(*cues, **changes):
    return " ".join(report_of(*cues, **changes).answer)


def test_nothing_to_remove_is_said_of_networks_that_learned_the_images_and_of_no_others():
    ignored = cue("box", strength(0.02))
    assert said(ignored) == "After 6 epochs, net does not pick up box at these strengths: there is nothing to remove."
    guesses = said(ignored, NC=0.57, test=30)
    assert (
        "hardly learned these images (57 % of test images are right, 33 % by always naming the largest class)"
        in guesses
    )
    assert "nothing to remove" not in guesses and "--set pretrain.epochs" in guesses
    assert "nothing to remove" not in said(cue("box", strength(0.0, C=0.34)))  # its own network guesses
    assert "nothing to remove" not in said(ignored, NC=0.01, classes=100, test=200)


def test_a_network_that_names_the_largest_class_only_learned_nothing():
    box, patch = cue("box", strength(0.0, C=0.9)), cue("patch", strength(0.0, C=0.9))
    majority = said(box, patch, NC=0.9, classes=2, largest=0.9)
    assert "nothing to remove" not in majority and "Little can be said of box and patch" in majority
    assert "(90 % of test images are right, 90 % by always naming the largest class)" in majority
    learned = cue("box", strength(0.0, C=0.97))
    assert "nothing to remove" in said(learned, NC=0.97, classes=2, largest=0.9)
    assert "Little can be said" in said(learned, NC=0.97, classes=2, largest=0.9, test=60)


def test_kinds_are_counted_whether_or_not_they_have_run():
    box, patch = cue("box", strength(0.3)), cue("patch", strength(0.01))
    assert said(box, patch).startswith("After 6 epochs, net picks up 1 of 2 kinds of cue at these strengths: box, but ")
    assert said(box).startswith("After 6 epochs, net picks up the one kind of cue at these strengths: box.")
    partly = said(box, cue("border", unknown()), cue("patch", strength(0.0, "weak", 0.25), unknown()))
    assert "picks up 1 of 3 kinds of cue at these strengths: box. Of border and patch it is not known." in partly
    assert "nothing to remove" not in said(patch, cue("border", unknown()))


def test_what_may_be_chance_is_neither_picked_up_nor_ignored():
    unclear, ignored = cue("box", strength(0.2, chance=0.3)), cue("patch", strength(0.02, chance=0.05))
    alone = said(unclear, test=60)
    assert alone == "Whether net picks up box cannot be told with 60 test images: a swap’s cost may be chance."
    both = said(unclear, ignored, test=60)
    assert both.startswith(
        "After 6 epochs, net does not pick up patch at these strengths. Whether net picks up box cannot"
    )
    clear = said(unclear, cue("border", strength(0.5, chance=0.3)), test=60)
    assert (
        "net picks up 1 of 2 kinds of cue at these strengths: border. Whether net picks up box cannot be told" in clear
    )
    page = page_html(report_of(unclear, test=60), {})
    assert '<p class="verdict">cannot be told</p>' in page and "with 60 test images" in page
    weak_only = cue("box", strength(0.2, "weak", 0.5, chance=0.3), strength(0.4, chance=0.3))
    assert "cannot be told" not in said(weak_only)


def test_few_test_images_give_no_all_clear():
    box, patch = cue("box", strength(0.02, chance=0.14)), cue("patch", strength(0.5, chance=0.14))
    few = "After 6 epochs, net does not pick up box at these strengths, as far as 100 test images can tell."
    assert said(box, test=100) == few
    assert "patch, but not box, as far as 100 test images can tell." in said(box, patch, test=100)


def test_an_unfinished_audit_says_so_first():
    box = cue("box", strength(0.3))
    first = report_of(box, missing=3, unprobed=1).answer[0]
    assert first == ("Not finished: 3 trainings and repairs and 1 probe have not run yet. The same command goes on.")
    nothing = report_of(cue("box", unknown()), missing=3).answer
    assert nothing[1] == "Nothing can be said yet of what the network picks up."
    assert report_of(box).answer[0].startswith("After")


def test_the_kind_that_pulls_hardest_is_picked_up_and_compared_at_strengths_that_all_have():
    strong = cue("box", strength(0.12, "weak", 0.5), strength(0.5))
    partly = cue("patch", unknown("weak", 0.5), strength(0.3))
    assert "Of these, box pulls hardest: when it is strong" in said(strong, partly)
    big_drop_only_when_strong = cue("border", unknown("weak", 0.5), strength(0.6))
    assert "Of these, border pulls hardest" in said(strong, big_drop_only_when_strong)
    assert "pulls" not in said(strong, cue("patch", strength(0.01)))
    apart = said(cue("box", strength(0.2, "weak", 0.5), unknown()), partly)
    assert "pulls" not in apart


def test_methods_are_compared_by_what_is_shown_and_over_the_same_networks():
    two = cue("box", strength(0.3, "weak", 0.5), strength(0.4))
    best = said(two, methods=(method("a", 0.2, repaired=2), method("b", 0.1, repaired=2), method("c", 0.01)))
    assert "Of the methods, with these settings, b leaves least: a swapped cue still changes 10 %" in best
    assert "a and b leave least" in said(two, methods=(method("a", 0.2, repaired=2), method("b", 0.201, repaired=2)))
    alone = said(two, methods=(method("a", 0.2, repaired=2), method("b", 0.1)))
    assert "after a, the only method that has repaired all of these networks, a swapped" in alone
    assert "cannot be compared" in said(two, methods=(method("a", 0.2),))


def test_a_method_that_ruins_the_network_is_left_out_and_named_with_its_cost():
    box = cue("box", strength(0.4))
    ruin, good = method("ft-large", 0.0, gain=-0.42, behind_reference=0.45), method("cbft", 0.03, gain=0.02)
    found = said(box, methods=(ruin, good, method("llr", 0.2)))
    assert "Of the methods, with these settings, cbft leaves least: a swapped cue still changes 3 %" in found
    left_out = (
        "Left out, with accuracy without cues more than 10 points below that after cbft: ft-large (44 points below, "
    )
    assert f"{left_out}a swap changes 0 %)." in found
    two = said(box, methods=(ruin, good))
    assert "With these settings, after cbft a swapped cue still changes 3 %" in two and "the only method" not in two
    alone = said(box, methods=(ruin,))
    kept = (
        "keeps accuracy without cues within 10 points of that before the repair: ft-large (42 points below, a swap chan"
    )
    assert kept in alone and "leave" not in alone and "after ft-large" not in alone.lower()


@pytest.mark.parametrize(
    ("changes", "left_out"),
    [
        ({"gain": -0.12}, True),
        ({"gain": -0.104}, False),  # shown as 10 points
        ({"gain": -0.12, "behind_reference": 0.05}, False),  # the networks were further than one without cues
        ({"gain": -0.12, "behind_reference": 0.2}, True),
        ({"gain": 0.03, "behind_reference": 0.3}, False),  # no method comes near the cue-free network
    ],
)
def test_a_cost_is_one_against_what_can_be_had(changes, left_out):
    methods = (method("a", 0.0, **changes), method("b", 0.2))
    assert ("Left out" in said(cue("box", strength(0.4)), methods=methods)) == left_out


def test_methods_that_do_not_help_are_not_recommended():
    box = cue("box", strength(0.4))
    worse = said(box, methods=(method("a", 0.5), method("b", 0.6)))
    assert "None of the methods helps; a leaves least: a swapped cue still changes 50 % of the" in worse
    assert "a does not help" in said(box, methods=(method("a", 0.4),))


def test_repairs_that_all_failed_are_said_to_have_failed():
    box = cue("box", strength(0.4))
    failed = report_of(
        box, methods=(method("a", repaired=0, failed=1),), problems=(AuditProblem(label="a", error="too few"),)
    )
    assert "All repairs failed; why is said below." in failed.answer
    assert "failed: see below" in page_html(failed, {})
    assert "None of these networks is repaired yet." in said(box, methods=(method("a", repaired=0),))


def test_a_page_has_no_empty_parts():
    ignored = report_of(cue("box", strength(0.02)), methods=(method("a", repaired=0),))
    page = page_html(ignored, {})
    assert "What removes them" not in page and "Each network" not in page
    assert "–" not in page.partition("<main>")[2].partition("How to read it")[0]
    assert "−2" in page and "ahead after" not in page


def test_several_seeds_have_a_spread_and_missing_ones_are_named():
    repair = Repair(
        method="a",
        seeds=(1,),
        accuracy=accuracies(),
        flips=0.2,
        left=0.5,
        gain=0.0,
        behind_reference=0.0,
        seconds=1.0,
    )
    some = strength(0.4, flips=0.4, flips_spread=0.05, repairs=(repair,)).model_copy(update={"seeds": (0, 1)})
    partly = method("a", 0.2, repaired=2, words={"kept": 1})
    page = page_html(report_of(cue("box", some), methods=(partly,)).model_copy(update={"seeds": (0, 1, 2)}), {})
    assert "±5" in page and "seeds 0, 1 only" in page and "seed 1 only" in page and "1 of 2 probed" in page


@pytest.mark.parametrize(
    ("strength", "text"), [("relative_strength", "share of the kind’s own opacity"), ("size", "parameter size")]
)
def test_a_page_says_what_strengths_and_numbers_mean(strength, text):
    page = page_html(report_of(cue("box", unknown())).model_copy(update={"strength": strength}), {})
    assert f"The number beside a strength is the {text}." in page
    assert "multiplied by 3/2" in page and "± 2.5 points" in page and "also further training" in page
    assert "none are tuned to your images" in page


@pytest.mark.parametrize(
    ("points", "text"), [(2, "at its ends alone"), (3, "at its midpoint alone"), (5, "at 3 points between its ends")]
)
def test_a_page_with_words_for_repairs_says_where_the_path_back_was_measured(points, text):
    box = cue("box", strength(0.4))
    hidden = report_of(box, methods=(method("a", 0.0, words={"hidden": 1}),)).model_copy(update={"path_points": points})
    assert f"Whether the straight path back is open was measured {text}" in page_html(hidden, {})
    assert "straight path back" not in page_html(report_of(box, methods=(method("a", 0.0),)), {})


def test_a_page_explains_the_word_for_a_cue_whose_barrier_was_not_measured():
    box = cue("box", strength(0.4))
    page = page_html(report_of(box, methods=(method("a", 0.0, words={UNKNOWN: 1}),)), {})
    assert "hidden or unlinked</span>" in page and "not probed" not in page
    assert "whether a barrier lies before the network that did follow the cue was not measured" in page
    known = page_html(report_of(box, methods=(method("a", 0.0, words={"hidden": 1}),)), {})
    assert "hidden or unlinked" not in known


@pytest.mark.parametrize(("classes", "changed", "cost"), [(2, "5.1", "7.2"), (10, "2.8", "5.3")])
def test_a_page_says_how_far_the_numbers_of_a_swap_are_known(classes, changed, cost):
    page = page_html(report_of(cue("box", strength(0.3)), classes=classes), {})
    assert "± 2.5 points (95&#8239;%) at most" in page
    assert f"what a swap changes to ± {changed} and the points that it costs to ± {cost}" in page
    alone = report_of(cue("box", strength(0.3)))
    alone = alone.model_copy(update={"images": alone.images.model_copy(update={"classes": None})})
    assert "what a swap changes to" not in page_html(alone, {})


def test_a_method_counts_networks_and_failures_and_means_are_over_networks():
    def repair(flips, *seeds):
        own = {"left": None, "gain": 0.0, "behind_reference": None, "seconds": 1.0, "words": ("kept",) * len(seeds)}
        return Repair(method="a", seeds=seeds, accuracy=accuracies(), flips=flips, **own)

    both = strength(0.3, flips=0.4, repairs=(repair(0.3, 0, 1),))
    one = strength(0.3, flips=0.4, repairs=(repair(0.0, 0),))
    spec = SimpleNamespace(name="a", kind="method", summary="", needs={"clean"})
    (found,) = methods_of([SimpleNamespace(spec=spec)], [cue("box", both, one)], {"a": 1})
    assert (found.repaired, found.failed, found.words) == (3, 1, {"kept": 3})
    assert found.flips == pytest.approx((0.3 + 0.3 + 0.0) / 3)

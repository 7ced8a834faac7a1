"""``mmc-bench check``: what it selects, prints and exits with; and that every built-in plugin passes."""

import json
import sys
from dataclasses import replace

import pytest
from helpers.kit import in_this_process, source_of
from helpers.plugins import registering, registry_of, write_source

from mmc_bench.plugin.registry import KINDS, Registry
from mmc_bench.testing import checks_of, run_checks
from mmc_bench.testing.conformance import properties_of, properties_of_offer, subject_of


@pytest.fixture
def planted(bench):
    """Return a checker of a backbone, sound or with these lines in its class; backbones are quickest to check."""

    def check(body, *words):
        write_source(bench.folder, "plugs/planted.py", source_of("backbone", body))
        return bench("check", "planted", "--plugins-dir", "plugs", *words)

    return check


@pytest.mark.slow
def test_a_sound_plugin_gets_a_line_a_property_and_exit_code_0(planted):
    result = planted("")
    first, *lines, last = result.out.splitlines()
    assert result.code == 0
    assert first == "backbone planted (planted 0)"
    assert "  ok      has timm's interface: 8 features" in lines
    assert last.startswith(f"{sum(line.startswith('  ok') for line in lines)} ok, ")


@pytest.mark.slow
def test_a_fault_gets_what_where_and_how_and_exit_code_1(planted):
    result = planted("get_classifier = property()")
    assert result.code == 1
    at = next(n for n, line in enumerate(result.out.splitlines()) if "FAILED  has timm's interface" in line)
    what, remedy = result.out.splitlines()[at : at + 2]
    assert "the network has no get_classifier (planted.py, line " in what
    assert remedy.strip().startswith("to mend it: give it timm's interface")
    assert " failed, " in result.out.splitlines()[-1]


@pytest.mark.slow
def test_json_holds_the_same_findings(planted):
    result = planted("get_classifier = property()", "--json")
    (report,) = json.loads(result.out)
    assert (result.code, report["passed"], report["kind"], report["name"]) == (1, False, "backbone", "planted")
    check = next(check for check in report["checks"] if check["name"] == "has timm's interface")
    assert (check["outcome"], bool(check["message"]), bool(check["remedy"])) == ("failed", True, True)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 4, "name what to check, or write --all"),
        (["cfbt"], 4, "no method, dataset, backbone or observer is called 'cfbt': did you mean cbft?"),
        (["nothing-*"], 5, "is called 'nothing-*'"),
        (["cbft", "--kind", "dataset"], 4, "unknown dataset 'cbft'"),
        (["cbft", "--data", "cifar10=DIR"], 4, "no selected dataset reads 'cifar10'"),
        (["timm/*"], 5, "a family's members are named one by one"),
        (["cbft", "--kind", "suite"], 4, "'suite' is not one of"),
    ],
)
def test_wrong_input_gets_one_sentence(bench, words, code, says):
    result = bench("check", *words)
    assert result.code == code
    assert says in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_plugin_that_fails_to_load_is_blamed_for_its_own_names_alone(bench, tmp_path):
    file = write_source(tmp_path, "broken.py", "raise ValueError")
    typo = bench("check", "resnt8", "--plugins-dir", file)
    assert typo.code == 4 and "observer is called 'resnt8': did you mean resnet8" in typo.err
    own = bench("check", "broken:mine", "--plugins-dir", file)
    assert own.code == 4 and "'broken:mine' is not there: plugin broken failed to load: ValueError" in own.err


def test_a_planted_fault_fails_a_plugin_s_own_test_in_the_words_of_the_kit(tmp_path):
    file = write_source(tmp_path, "planted.py", source_of("backbone", "get_classifier = property()"))
    cases = {case.__name__: case for case in checks_of("backbone", "planted", plugins=[file])}
    cases["is built for 10 classes of 3x32x32"]()
    with pytest.raises(
        pytest.fail.Exception, match=r"has no get_classifier \(planted.py, line \d+\)\nto mend it: give it timm"
    ):
        cases["has timm's interface"]()
    with pytest.raises(pytest.skip.Exception, match="network for images"):
        cases["is built for 2 classes of vectors of 128"]()


def observer_checks(name, registry):
    subject = subject_of(registry.get("observer", name), registry)
    return [prop.check(subject) for prop in properties_of("observer") if prop.name in in_this_process("observer")]


def test_an_observer_that_lacks_its_package_is_not_checked_and_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    checks = observer_checks("tensorboard", Registry.discover())
    assert {check.outcome for check in checks} == {"not checked"}
    assert all("pip install 'mmc-bench[tensorboard]'" in check.message for check in checks)


def test_an_observer_that_hears_nothing_fails(tmp_path):
    body = "    def job_finnished(self, job): pass\n"
    registry = registry_of(write_source(tmp_path, "mine.py", registering("mine", kind="observer") + body))
    last = observer_checks("mine", registry)[-1]
    assert last.outcome == "failed" and "has none of the functions run_started" in last.message


# --- the built-in plugins


def built_in():
    """Return every built-in plugin; of those that share a target and differ in a number, the first alone."""
    registry = Registry.discover()
    offers = [offer for kind in KINDS for offer in registry.offers(kind) if offer.plugin.distribution == "mmc-bench"]
    shared = {"ft-medium", "ft-small", "resnet20", "timm/*"}
    return [offer for offer in offers if offer.spec.name not in shared]


#: Defaults that take long and change nothing about the properties.
QUICKER = {"dfr": {"retrains": 2, "strengths": [1.0, 0.1]}}


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{offer.spec.kind} {offer.spec.name}" for offer in built_in()])
def test_every_built_in_plugin_passes(name):
    registry = Registry.discover()
    kind, _, plain = name.partition(" ")
    offer = registry.get(kind, plain)
    defaults = {**offer.spec.defaults, **QUICKER.get(plain, {})}
    subject = subject_of(replace(offer, spec=replace(offer.spec, defaults=defaults)), registry)
    # One plugin for all is asked what needs another process.
    names = [prop.name for prop in properties_of(kind)] if plain == "cbft" else in_this_process(kind)
    asked = [prop for prop in properties_of_offer(offer) if prop.name in names]
    checks = [prop.check(subject) for prop in asked]
    assert [(check.name, check.message) for check in checks if not check.passed] == []
    assert len(asked) > 2


@pytest.mark.slow
def test_a_model_of_timm_passes():
    registry = Registry.discover()
    checks = run_checks(registry.get("backbone", "timm/resnet10t"), registry)
    assert [(check.name, check.message) for check in checks if not check.passed] == []

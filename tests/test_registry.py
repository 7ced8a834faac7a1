"""Naming what plugins offer, and isolating the broken ones."""

import sys
from functools import partial

import pytest
from helpers.plugins import GOOD, HEADER, install_distribution, registering, registry_of, write_source

from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.system.process_state import ProcessState

pytestmark = pytest.mark.usefixtures("forgotten_plugins")


def names(registry, kind="method"):
    return [offer.spec.name for offer in registry.offers(kind)]


def refused(registry, kind, name):
    """Return the sentence with which a name is refused."""
    with pytest.raises(UserError) as caught:
        registry.select(kind, [name])
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    return partial(write_source, tmp_path)


@pytest.fixture
def install(tmp_path, monkeypatch):
    return partial(install_distribution, tmp_path, monkeypatch)


def test_importing_the_built_in_plugins_changes_nothing_of_the_process(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("mmc_bench_plugins")]:
        monkeypatch.delitem(sys.modules, name)
    before = ProcessState.now().but_for("sys.path")
    own = [plugin for plugin in Registry.discover().plugins if plugin.distribution == "mmc-bench"]
    assert before.put_back().by("they") is None
    assert len(own) > 20 and all(plugin.module.__name__ in sys.modules for plugin in own)


# --- lazy targets


def test_registering_imports_nothing_of_the_target(install):
    target = "raise RuntimeError('imported too early')"
    plugin = registering("heavy", target=".method:Heavy")
    install("acme", {"acme_plugin/__init__.py": plugin, "acme_plugin/method.py": target}, {"a": "acme_plugin"})
    registry = Registry.discover()
    offer = registry.get("method", "heavy")
    assert offer.version and offer.reference({}).name == "heavy"
    assert "acme_plugin.method" not in sys.modules
    with pytest.raises(UserError, match=r"method 'heavy' of acme.*'\.method:Heavy'.*imported too early"):
        offer.load()


def test_targets_are_relative_to_the_plugin_or_absolute(install):
    method = "class Mine: pass"
    install(
        "acme",
        {
            "acme_plugin/__init__.py": "",
            "acme_plugin/sub/__init__.py": registering("package", target=".method:Mine"),
            "acme_plugin/sub/method.py": method,
            "acme_plugin/module.py": registering("module", target=".sub.method:Mine"),
            "acme_plugin/up.py": registering("absolute", target="acme_plugin.sub.method:Mine"),
            "acme_plugin/own.py": registering("own", target=":Mine"),
        },
        {name: f"acme_plugin.{name}" for name in ("sub", "module", "up", "own")},
    )
    registry = Registry.discover()
    homes = {name: registry.get("method", name).load().__module__ for name in ("package", "module", "absolute", "own")}
    assert homes == {
        "package": "acme_plugin.sub.method",
        "module": "acme_plugin.sub.method",
        "absolute": "acme_plugin.sub.method",
        "own": "acme_plugin.own",
    }


@pytest.mark.parametrize("target", [":Missing", "nowhere.at.all:Mine", ".inner:Mine", "leaving_plugin:Mine"])
def test_a_target_that_cannot_be_loaded_is_named(write, tmp_path, monkeypatch, target):
    write("leaving_plugin.py", "import sys\nsys.exit(0)")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = registry_of(write("mine.py", registering("good", target=target)))
    with pytest.raises(UserError, match=f"method 'good' of mine: target '{target}' failed to load"):
        registry.get("method", "good").load()


# --- names


def test_an_unknown_name_is_answered_with_the_nearest(write):
    registry = registry_of(write("mine.py", registering("gradient-descent", "ascent")))
    assert refused(registry, "method", "gradient-decent") == (
        "unknown method 'gradient-decent': did you mean gradient-descent?"
    )
    assert refused(registry, "method", "zzz") == "unknown method 'zzz': known: ascent, gradient-descent"
    assert "unknown backbone 'ascent'" in refused(registry, "backbone", "ascent")


def test_an_unknown_name_mentions_plugins_that_failed_to_load(write, tmp_path):
    write("plugs/mine.py", GOOD)
    write("plugs/broken.py", "raise ValueError")
    registry = registry_of(tmp_path / "plugs")
    assert "plugins that failed to load: broken" in refused(registry, "method", "of-broken")
    assert refused(registry, "method", "broken:its") == (
        "method 'broken:its' is not there: plugin broken failed to load: ValueError: no message (broken.py, line 1)"
    )


def test_globs_and_names_select_each_offer_once_in_the_order_given(write):
    registry = registry_of(write("mine.py", registering("b-one", "b-two", "a", "c")))

    def selected(*patterns):
        return [offer.spec.name for offer in registry.select("method", patterns)]

    assert selected("c", "b-*", "b-one", "mine:a", "?") == ["c", "b-one", "b-two", "a"]
    assert selected("b-[to]*") == ["b-one", "b-two"]
    assert selected() == []
    assert refused(registry, "method", "bb*") == "no method matches 'bb*': known: a, b-one, b-two, c"


def test_a_family_answers_to_any_member_and_hands_its_name_to_the_target(write):
    source = registering("zoo/*", kind="backbone", defaults={"stem": 3})
    registry = registry_of(write("mine.py", source))
    offer = registry.get("backbone", "zoo/resnet10t")
    assert offer.qualified_name == "mine:zoo/resnet10t"
    assert offer.reference({"depth": 1}).parameters == {"stem": 3, "model": "resnet10t", "depth": 1}
    assert registry.get("backbone", "mine:zoo/resnet10t").spec.defaults == offer.spec.defaults
    assert "unknown backbone 'zoo/two words'" in refused(registry, "backbone", "zoo/two words")
    assert "unknown backbone 'zoo/'" in refused(registry, "backbone", "zoo/")
    assert "write zoo/NAME" in refused(registry, "backbone", "zoo/*")
    assert "no backbone matches '*'" in refused(registry, "backbone", "*")


def test_what_a_family_s_name_fixes_is_no_parameter(write):
    source = HEADER + (
        "\n@hookimpl\ndef register_backbones(register):\n"
        "    register(BackboneSpec(name='zoo/*', target=':build'))\n"
        "    register(BackboneSpec(name='free', target=':build', defaults={'model': 'any'}))\n\n"
        "def build(num_classes, input_shape, model: str, mode: int = 1):\n    return model\n"
    )
    registry = registry_of(write("mine.py", source))
    offer = registry.get("backbone", "zoo/resnet.v1.5")
    says = r"backbone zoo/resnet\.v1\.5 has no parameter 'model': .* another name, zoo/vit"
    for ask in (offer.reference, offer.configure):
        with pytest.raises(UserError, match=says):
            ask({"model": "vit"})
    with pytest.raises(UserError, match="no parameter 'modle': did you mean mode"):
        offer.configure({"modle": "vit"})
    reference = offer.reference({"mode": 2})
    assert reference.parameters == {"model": "resnet.v1.5", "mode": 2}
    assert dict(offer.configure(reference.parameters)) == reference.parameters  # as a record has them
    assert dict(registry.get("backbone", "free").configure({"model": "vit"}))["model"] == "vit"


# --- collisions


@pytest.fixture
def taken(install):
    """Install two distributions that both offer `shared`, and one name each of their own."""
    install("acme", {"acme_plugin.py": registering("shared", "acme-only")}, {"a": "acme_plugin"})
    install("zenith", {"zenith_plugin.py": registering("shared", "zenith-only")}, {"z": "zenith_plugin"})
    return Registry.discover()


def test_a_shared_name_is_an_error_only_when_it_is_used_and_names_both(taken):
    assert taken.failures == []
    assert [offer.spec.name for offer in taken.select("method", ["acme-only", "zenith-*"])] == [
        "acme-only",
        "zenith-only",
    ]
    expected = "method 'shared' is offered by 2 plugins: write acme:shared or zenith:shared"
    assert refused(taken, "method", "shared") == expected
    assert refused(taken, "method", "sha*") == expected


def test_a_qualified_name_is_never_ambiguous(taken):
    chosen = taken.select("method", ["zenith:shared", "acme:shared"])
    assert [offer.plugin.distribution for offer in chosen] == ["zenith", "acme"]
    assert [offer.load().__module__ for offer in chosen] == ["zenith_plugin", "acme_plugin"]
    assert "unknown method 'nobody:shared'" in refused(taken, "method", "nobody:shared")


def test_one_name_for_a_method_and_a_backbone_is_no_collision(write, tmp_path):
    write("plugs/one.py", registering("same"))
    write("plugs/two.py", registering("same", kind="backbone"))
    registry = registry_of(tmp_path / "plugs")
    assert registry.get("method", "same").plugin.name == "one"
    assert registry.get("backbone", "same").plugin.name == "two"


def test_two_files_of_one_name_say_where_they_lie(write):
    first, second = write("one/mine.py", GOOD), write("two/mine.py", GOOD)
    message = refused(registry_of(first, second), "method", "good")
    assert str(first) in message and str(second) in message


# --- broken plugins

BROKEN = {
    "raises at import": ("raise RuntimeError('no such\\n  moon')", "RuntimeError: no such moon"),
    "exits at import": ("import sys\nsys.exit('bye')", "SystemExit: the plugin called sys.exit('bye')"),
    "empty": ("", "registers nothing: is @hookimpl missing?"),
    "forgotten marker": (GOOD.replace("@hookimpl", ""), "registers nothing: is @hookimpl missing?"),
    "default that is no plain data": (
        registering("mine", defaults={"when": {1, 2}}),
        "method 'mine': default when = {1, 2}: Object of type set is not JSON serializable",
    ),
    "default that is NaN": (
        registering("mine").replace("defaults={}", "defaults={'lr': float('nan')}"),
        "method 'mine': default lr = nan: Out of range float values",
    ),
    "malformed member check": (
        registering("zoo/*", kind="backbone").replace("defaults={}", "check_member='here'"),
        "backbone 'zoo/*': check_member 'here' must read 'module:function'",
    ),
    "does not parse": ("def broken(:\n    pass", "SyntaxError"),
    "misspelt hook": (
        HEADER + "@hookimpl\ndef register_method(register): pass",
        "unknown hook 'register_method': did you mean register_methods",
    ),
    "wrong hook argument": (HEADER + "@hookimpl\ndef register_methods(registry): pass", "registry"),
    "other API version": ("mmc_bench_api = 99\n" + GOOD, "plugin API 99, and this mmc-bench speaks 1"),
    "wrong type": (
        HEADER + "@hookimpl\ndef register_methods(register): register(BackboneSpec(name='b', target=':B'))",
        "register_methods registers MethodSpec, not BackboneSpec",
    ),
    "no spec at all": (
        HEADER + "@hookimpl\ndef register_datasets(register): register({'name': 'd'})",
        "register_datasets registers DatasetSpec, not dict",
    ),
    "hook that raises": (
        HEADER + "@hookimpl\ndef register_methods(register):\n    1 / 0",
        "ZeroDivisionError: division by zero (broken_plugin.py, line 4)",
    ),
    "bad name": (registering("My Method"), "method name 'My Method' must be lower-case letters"),
    "bad target": (registering("mine", target="module.Class"), "'module.Class' must read 'module:Class'"),
    "unknown need": (
        HEADER + "@hookimpl\ndef register_methods(register):"
        " register(MethodSpec(name='m', target=':M', needs={'test'}))",
        "method 'm' needs ['test']; a method can need ['clean', 'cued', 'environments', 'fully-cued']",
    ),
}


@pytest.mark.parametrize("flaw", BROKEN)
def test_a_broken_plugin_is_reported_in_one_line_while_all_others_work(install, write, flaw):
    source, expected = BROKEN[flaw]
    install("acme", {"broken_plugin.py": source, "good_plugin.py": GOOD}, {"a": "broken_plugin"})
    registry = Registry.discover([write("folder/good.py", GOOD)])
    (failure,) = registry.failures
    assert (failure.name, failure.distribution) == ("a", "acme")
    assert expected in failure.error and "\n" not in failure.error
    assert failure.provides == ()
    assert registry.get("method", "good").load().__name__ == "Mine"
    assert not any(offer.plugin.distribution == "acme" for offer in registry.offers("method"))
    assert len(names(registry, "backbone")) > 1


def test_an_entry_point_that_leads_nowhere_is_reported(install):
    install("acme", {}, {"gone": "acme_plugin_of_old"})
    (failure,) = Registry.discover().failures
    assert (failure.name, failure.distribution) == ("gone", "acme")
    assert "No module named 'acme_plugin_of_old'" in failure.error


def test_a_plugin_that_fails_half_way_offers_nothing(write):
    source = registering("first").replace("class Mine", "    raise ValueError('half way')\n\nclass Mine")
    registry = registry_of(write("mine.py", source))
    assert names(registry) == [] and "half way" in registry.failures[0].error


def test_a_user_s_interrupt_during_discovery_is_not_swallowed(write):
    with pytest.raises(KeyboardInterrupt):
        registry_of(write("mine.py", "raise KeyboardInterrupt"))


def test_what_a_plugin_prints_stays_off_standard_output(write, capsys):
    source = "print('hello from import')\n" + GOOD.replace("class", "print('hello again')\n\nclass")
    registry = registry_of(write("mine.py", source))
    registry.get("method", "good").load()
    captured = capsys.readouterr()
    assert captured.out == "" and "hello from import" in captured.err

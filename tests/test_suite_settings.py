"""What the command line and Python callers override in a suite."""

import pytest
from test_suite import LEAST, SHIPPED

from mmc_bench.errors import UserError
from mmc_bench.results.settings import ConnectSettings, DataSettings, Recipe
from mmc_bench.suites.settings import Setting, read_settings
from mmc_bench.suites.suite import load_suite, overridden


@pytest.fixture
def suite_from(tmp_path):
    """Return a loader of suite files with this content."""

    def load(content):
        file = tmp_path / "mine.yaml"
        file.write_text(content, encoding="utf-8")
        return load_suite(str(file), SHIPPED)

    return load


@pytest.fixture
def suite(suite_from):
    content = 'seeds: [0, 1]\nparameters: {m: {lr: 1, epochs: 3}, "*": {lr: 2}}\npretrain: {epochs: 9, lr: 0.5}\n'
    return suite_from(LEAST + content)


def refusal(suite, *settings, **selection):
    with pytest.raises(UserError) as caught:
        overridden(suite, selection, read_settings(settings))
    return str(caught.value)


def test_lists_of_the_command_line_replace_the_suite_s(suite):
    changed = overridden(suite, {"methods": ["x"], "seeds": [5], "cue_rates": [], "datasets": []}, [])
    assert (changed.methods, changed.seeds) == (("x",), (5,))
    assert (changed.datasets, changed.backbones, changed.cue_rates) == (("d",), ("b",), (0.5,))
    assert suite.methods == ("m", "n")


def test_set_reaches_one_key_of_a_section_and_leaves_the_others(suite):
    changed = overridden(suite, {}, read_settings(["pretrain.epochs=2", "data.clean_images=7", "connect.points=3"]))
    assert changed.pretrain == Recipe(epochs=2, lr=0.5)
    assert (changed.data, changed.connect) == (DataSettings(clean_images=7), ConnectSettings(points=3))


def test_the_last_of_two_settings_counts(suite):
    assert overridden(suite, {}, read_settings(["pretrain.epochs=2", "pretrain.epochs=4"])).pretrain.epochs == 4


def test_set_adds_to_the_parameters_of_a_plugin(suite):
    changed = overridden(
        suite, {}, read_settings(["n.depth=4", "m.epochs=5", "timm/resnet10t.cifar_stem=false", "a.b-1.9.c=1"])
    )
    assert changed.parameters["m"] == {"lr": 1, "epochs": 5}
    assert changed.parameters["n"] == {"depth": 4}
    assert changed.parameters["timm/resnet10t"] == {"cifar_stem": False}
    assert changed.parameters["a.b-1.9"] == {"c": 1}


def test_set_wins_over_every_pattern_of_the_suite(suite):
    def learning_rate_of_m(changed):
        merged = {}
        for pattern, values in changed.parameters.items():
            merged.update(values if pattern in ("m", "*") else {})
        return merged["lr"]

    assert learning_rate_of_m(suite) == 2
    assert learning_rate_of_m(overridden(suite, {}, read_settings(["m.lr=3"]))) == 3
    assert learning_rate_of_m(overridden(suite, {}, read_settings(["*.lr=4"]))) == 4
    assert learning_rate_of_m(overridden(suite, {}, read_settings(["*.lr=4", "m.lr=5"]))) == 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E3", -2000.0),
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("[1e-3, 1e-4]", [1e-3, 1e-4]),
        ("clipped", "clipped"),
        ("'3'", "3"),
        ("a=b", "a=b"),
        ("", None),
        ("[1", "[1"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("TRUE", True),
        ("~", None),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2024-01-31", "2024-01-31"),
    ],
)
def test_values_are_read_as_yaml_1_2_with_the_numbers_that_people_write(suite, text, value):
    read = overridden(suite, {}, read_settings([f"m.x={text}"])).parameters["m"]["x"]
    assert read == value and type(read) is type(value)


def test_a_learning_rate_such_as_1e_4_is_a_number_in_sections_and_files_too(suite, suite_from):
    assert overridden(suite, {}, read_settings(["pretrain.weight_decay=1e-4"])).pretrain.weight_decay == 1e-4
    content = LEAST + "pretrain: {lr: 1e-3}\nparameters: {m: {lr: 1e-4, lrs: [1e-2, 2]}}\n"
    loaded = suite_from(content)
    assert loaded.pretrain.lr == 1e-3
    assert loaded.parameters == {"m": {"lr": 1e-4, "lrs": [1e-2, 2]}}


def test_seeds_are_the_same_numbers_in_a_file_and_on_the_command_line(suite_from):
    assert suite_from(LEAST + "seeds: [010, 1]\n").seeds == (10, 1) == (int("010"), int("1"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("seeds: [0, true]", "seeds.1 = True: a number is wanted, not a boolean"),
        ("seeds: true", "seeds.0 = True: a number is wanted, not a boolean"),
        ("seeds: ['0']", "seeds.0 = '0': a number is wanted, not text"),
        ("seeds: [1_0]", "seeds.0 = '1_0': a number is wanted, not text"),
        ("seeds: [yes]", "seeds.0 = 'yes': input should be a valid integer"),
        ("pretrain: {epochs: true}", "pretrain.epochs = True: a number is wanted, not a boolean"),
        ("pretrain: {epochs: 1:30}", "pretrain.epochs = '1:30': input should be a valid integer"),
        ("pretrain: {lr_drops: [true]}", "pretrain.lr_drops.0 = True: a number is wanted, not a boolean"),
        ("data: {clean_images: '64'}", "data.clean_images = '64': a number is wanted, not text"),
        ("connect: {quadratic: {lr: true}}", "connect.quadratic.lr = True: a number is wanted, not a boolean"),
        ("pairs: [{second: {seed: true}}]", "pairs.0.second.seed = True: a number is wanted, not a boolean"),
        ("threads: true", "threads = True: a number is wanted, not a boolean"),
    ],
)
def test_booleans_and_text_are_no_numbers(suite_from, line, expected):
    with pytest.raises(UserError) as refused:
        suite_from(LEAST + line + "\n")
    assert str(refused.value).partition("mine.yaml: ")[2].startswith(expected)


def test_threads_can_be_set(suite):
    assert overridden(suite, {}, read_settings(["threads=3"])).threads == 3
    assert "threads = 0" in refusal(suite, "threads=0")


@pytest.mark.parametrize("setting", ["pretrain.epochs", "epochs=3", "=3", ".epochs=3", "pretrain.=3", "m=lr=3", ""])
def test_a_malformed_setting_is_shown_with_how_to_write_it(suite, setting):
    message = refusal(suite, setting)
    assert message == f"--set {setting}: write SECTION.key=value or PLUGIN.parameter=value"


def test_a_mapping_gives_the_settings_that_the_command_line_would():
    texts = ["pretrain.epochs=2", "connect.quadratic.lr=1e-3", "a.b-1.9.c=[1, x]", "cbft*.lr=0.5", "threads=3"]
    values = {"pretrain.epochs": 2, "connect.quadratic.lr": 1e-3, "a.b-1.9.c": [1, "x"], "cbft*.lr": 0.5, "threads": 3}
    assert read_settings(values) == read_settings(texts)
    assert [setting.section for setting in read_settings(values)] == ["pretrain", "connect", "", "", ""]
    assert [setting.plugin for setting in read_settings(values)] == ["", "", "a.b-1.9", "cbft*", ""]
    assert [str(setting) for setting in read_settings({"m.lr": "x", "threads": 3})] == ["m.lr = 'x'", "threads = 3"]


@pytest.mark.parametrize("key", ["epochs", "", ".epochs", "pretrain."])
def test_a_mapping_s_key_without_an_owner_is_refused(key):
    with pytest.raises(UserError, match=r"set '.*': write 'SECTION\.key' or 'PLUGIN\.parameter'"):
        Setting.of(key, 3)


def test_mistakes_of_the_command_line_are_called_so(suite):
    unknown = refusal(suite, "pretrain.epoch=3")
    assert unknown.startswith("command line: unknown key 'pretrain.epoch': did you mean epochs")
    assert refusal(suite, "pretrain.epochs=many").startswith("command line: pretrain.epochs = 'many': ")
    assert refusal(suite, cue_rates=[1.5]).startswith("command line: cue_rates.0 = 1.5: ")
    assert refusal(suite, seeds=[-1]).startswith("command line: seeds.0 = -1: ")

"""Suite files: the shipped ones, their defaults, how mistakes are answered, and what the command line overrides."""

from dataclasses import replace

import pytest

from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.jobs import ConnectSettings, DataSettings, QuadraticSettings, Recipe
from mmc_bench.suites.plan import make_plan
from mmc_bench.suites.settings import Setting, read_settings
from mmc_bench.suites.suite import load_suite, overridden

SHIPPED = Registry.discover().suites
LEAST = "datasets: [d]\nbackbones: b\nmethods: [m, n]\ncue_rates: 0.5\n"


@pytest.fixture
def suite_from(tmp_path):
    """Return a loader of suite files with this content."""

    def load(content, name="mine.yaml"):
        file = tmp_path / name
        file.write_text(content, encoding="utf-8")
        return load_suite(str(file), SHIPPED)

    return load


@pytest.fixture
def complaint(suite_from, tmp_path):
    """Return a function that gives the sentence with which a suite file is refused, without the folder's name."""

    def refuse(content):
        with pytest.raises(UserError) as caught:
            suite_from(content)
        message = str(caught.value)
        assert message.startswith(str(tmp_path / "mine.yaml")) and "\n" not in message
        return message.removeprefix(f"{tmp_path}/")

    return refuse


# --- the shipped suites


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_suite_loads_and_plans(name):
    suite = load_suite(name, SHIPPED)
    plan = make_plan(suite, Registry.discover())
    assert suite.name == name and suite.summary
    assert len(plan.pretrainings) > 0 and len(plan.cells) == len(plan.pretrainings) * len(suite.methods)


def test_table4_and_fig31_train_the_same_models_alone():
    plans = [make_plan(load_suite(name, SHIPPED), Registry.discover()) for name in ("table4", "fig31")]
    keys = [{pretraining.key for pretraining in plan.pretrainings} for plan in plans]
    assert keys[0] == keys[1] and len(keys[0]) == 3 * 3
    assert not plans[0].cells and not plans[1].cells
    assert {pretraining.cue_rate for pretraining in plans[0].pretrainings} == {1.0}


def test_quick_is_the_suite_that_the_project_promises():
    suite = load_suite("quick", SHIPPED)
    assert (suite.datasets, suite.backbones, suite.cue_rates) == (("digits-box",), ("resnet8",), (0.95,))
    assert (suite.seeds, suite.threads) == ((0, 1, 2), 1)
    assert (suite.pretrain.epochs, suite.pretrain.batch_size) == (15, 64)
    assert suite.data == DataSettings()


def test_cifar10_small_is_the_suite_that_the_project_promises():
    suite = load_suite("cifar10-small", SHIPPED)
    assert (suite.datasets, suite.backbones, suite.cue_rates) == (("cifar10-box",), ("resnet8",), (0.8,))
    assert (suite.seeds, suite.threads) == ((0,), 1)
    assert (suite.pretrain.epochs, suite.pretrain.batch_size) == (10, 128)
    assert suite.data == DataSettings(pretrain_images=10_000, clean_images=1_000, validation_images=1_000)


TABLE_1 = ("ft-medium", "ft-small", "llr", "lpft", "cbft")
TABLE_3 = ("cbft", "cbft-no-barrier", "cbft-no-invariance")
DATASETS = ("cifar10-box", "cifar100-box-color", "dominoes")


@pytest.mark.parametrize(
    ("name", "backbone", "methods"),
    [("table1", "resnet18", TABLE_1), ("table3", "resnet18", TABLE_3), ("table1-vgg13", "vgg13", TABLE_1)],
)
def test_the_paper_s_tables_are_suites_with_its_grid_and_recipe(name, backbone, methods):
    suite = load_suite(name, SHIPPED)
    assert (suite.datasets, suite.backbones, suite.methods) == (DATASETS, (backbone,), methods)
    assert (suite.cue_rates, suite.seeds) == ((0.6, 0.7, 0.8, 0.9), (0, 1, 2))
    assert replace(suite.pretrain, curve_images=None) == Recipe()
    assert (suite.data, suite.parameters, suite.connect.points) == (DataSettings(), {}, 11)


def test_table_1_and_table_3_share_what_both_need():
    registry = Registry.discover()
    one, three = (make_plan(load_suite(name, SHIPPED), registry) for name in ("table1", "table3"))
    assert [job.key for job in one.pretrainings] == [job.key for job in three.pretrainings]
    shared = {cell.key for cell in one.cells} & {cell.key for cell in three.cells}
    assert (len(one.pretrainings), len(one.cells), len(three.cells), len(shared)) == (36, 180, 108, 36)
    assert shared == {cell.key for cell in one.cells if cell.method.name == "cbft"}


RATES = (0.6, 0.7, 0.8, 0.9, 1.0)


def test_fig4_is_figs_12_to_17_too_with_the_authors_batch_for_quadratic_paths():
    suite = load_suite("fig4", SHIPPED)
    plan = make_plan(suite, Registry.discover())
    assert (suite.datasets, set(suite.backbones), suite.cue_rates) == (DATASETS, {"vgg13", "resnet18"}, RATES)
    assert set(suite.connect.paths) == {"quadratic", "quadratic-nc", "linear", "permuted"}
    assert suite.connect.train_images and suite.connect.quadratic == QuadraticSettings(batch_size=128)
    assert len(plan.pairs) == 3 * 2 * len(RATES)
    assert {(pair.second.cue_rate, pair.first.data_seed == pair.second.data_seed) for pair in plan.pairs} == {(0, True)}


def test_table_2_compares_similar_and_dissimilar_models_and_shares_fig4_s():
    registry = Registry.discover()
    two, four = (make_plan(load_suite(name, SHIPPED), registry) for name in ("table2", "fig4"))
    rates = [(pair.first.cue_rate, pair.second.cue_rate) for pair in two.pairs]
    assert sorted(rates) == sorted([(0, 0), *((rate, other) for rate in RATES for other in (rate, 0))])
    assert all(pair.first.seed != pair.second.seed for pair in two.pairs)
    shared = {pair.key for pair in two.pairs} & {pair.key for pair in four.pairs}
    assert shared == {pair.key for pair in two.pairs if pair.first.cue_rate != pair.second.cue_rate}


def test_table2_small_compares_similar_and_dissimilar_models_and_shares_fig4_small_s():
    registry = Registry.discover()
    two, four = (make_plan(load_suite(name, SHIPPED), registry) for name in ("table2-small", "fig4-small"))
    assert {(pair.first.cue_rate, pair.second.cue_rate) for pair in two.pairs} == {(0, 0), (0.8, 0.8), (0.8, 0)}
    assert len({pair.key for pair in two.pairs} & {pair.key for pair in four.pairs}) == 1


def test_fig10_starts_without_cues_and_uses_fig4_s_models():
    registry = Registry.discover()
    ten, four = (make_plan(load_suite(name, SHIPPED), registry) for name in ("fig10", "fig4"))
    assert {job.cue_rate for job in ten.pretrainings} == {0.0, *RATES}
    assert {pair.first.key for pair in four.pairs} == {job.key for job in ten.pretrainings if job.cue_rate > 0}


def test_table1_small_is_the_grid_of_both_tables_cut_to_two_cores():
    suite = load_suite("table1-small", SHIPPED)
    assert (suite.datasets, suite.backbones) == (("cifar10-box", "dominoes"), ("resnet8",))
    assert suite.methods == (*TABLE_1, "cbft-partly-cued", *TABLE_3[1:])
    assert (suite.cue_rates, suite.seeds, suite.threads) == ((0.6, 0.9), (0,), 1)
    assert suite.parameters == {name: {"batch_size": 128} for name in ("ft-*", "llr", "lpft", "cbft*")}
    small = load_suite("cifar10-small", SHIPPED)
    assert (suite.data, suite.pretrain) == (small.data, small.pretrain)


@pytest.mark.parametrize("name", ["quick", "cifar10-small"])
def test_the_small_suites_name_the_paper_s_methods_and_its_ablations(name):
    paper = {"ft-large", "ft-medium", "ft-small", "llr", "lpft", "cbft", "cbft-no-barrier", "cbft-no-invariance"}
    assert set(load_suite(name, SHIPPED).methods) == paper


# --- a suite of the user's own


def test_what_a_suite_leaves_out_has_the_paper_s_values(suite_from):
    suite = suite_from(LEAST, "my-own.yaml")
    assert suite.name == "my-own"
    assert (suite.seeds, suite.parameters, suite.threads) == ((0,), {}, None)
    assert (suite.data, suite.pretrain, suite.connect) == (DataSettings(), Recipe(), ConnectSettings())
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum) == (100, 256, 0.1, 0.9)
    assert (recipe.weight_decay, recipe.lr_drops, recipe.lr_drop_factor) == (1e-4, (0.4, 0.8), 0.1)
    assert ConnectSettings().points == 11


def test_one_value_may_stand_for_a_list_of_one(suite_from):
    suite = suite_from("datasets: d\nbackbones: b\nmethods: m\ncue_rates: 1\nseeds: 7\n")
    assert (suite.datasets, suite.backbones, suite.methods) == (("d",), ("b",), ("m",))
    assert (suite.cue_rates, suite.seeds) == ((1.0,), (7,))


def test_a_file_wins_over_nothing_and_a_shipped_name_needs_no_path(suite_from, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    suite_from(LEAST, "quick.yaml")
    assert load_suite("quick", SHIPPED).datasets == ("digits-box",)
    assert load_suite("quick.yaml", SHIPPED).datasets == ("d",)


# --- mistakes


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (LEAST + "sedes: [0]\n", "mine.yaml: unknown key 'sedes': did you mean seeds?"),
        (LEAST + "zzz: 1\n", "mine.yaml: unknown key 'zzz': known: backbones, connect, cue_rates, data, datasets,"),
        (LEAST + "pretrain: {epoch: 3}\n", "mine.yaml: unknown key 'pretrain.epoch': did you mean epochs"),
        (LEAST + "data: {clean: 3}\n", "mine.yaml: unknown key 'data.clean': did you mean clean_set or clean_images"),
        (
            LEAST + "connect: {steps: 3}\n",
            "mine.yaml: unknown key 'connect.steps': known: batchnorm_images, matching, matching_images, paths, points",
        ),
        (LEAST.replace("0.5", "1.5"), "mine.yaml: cue_rates.0 = 1.5: input should be less than or equal to 1"),
        (LEAST.replace("0.5", "[0.5, -0.1]"), "cue_rates.1 = -0.1: input should be greater than or equal to 0"),
        (LEAST.replace("0.5", ".nan"), "cue_rates.0 = nan: input should be"),
        (LEAST.replace("0.5", "high"), "cue_rates.0 = 'high': input should be a valid number"),
        (LEAST + "seeds: [0, -1]\n", "mine.yaml: seeds.1 = -1: input should be greater than or equal to 0"),
        (LEAST + "seeds: [0.5]\n", "mine.yaml: seeds.0 = 0.5: input should be a valid integer"),
        (LEAST + "seeds: []\n", "mine.yaml: seeds = []: tuple should have at least 1 item"),
        (LEAST.replace("[d]", "[]"), "mine.yaml: datasets = []: tuple should have at least 1 item"),
        (LEAST.replace("[d]", "{d: 1}"), "mine.yaml: datasets = {'d': 1}: input should be a valid tuple"),
        (LEAST + "pretrain: 5\n", "mine.yaml: pretrain = 5: input should be a dictionary"),
        (LEAST + "pretrain: {lr: fast}\n", "mine.yaml: pretrain.lr = 'fast': input should be a valid number"),
        (LEAST + "pretrain: {epochs: 0}\n", "pretrain.epochs = 0: input should be greater than or equal to 1"),
        (LEAST + "pretrain: {lr_drops: [0.5, 7]}\n", "pretrain.lr_drops.1 = 7: input should be less than or equal"),
        (LEAST + "threads: 0\n", "mine.yaml: threads = 0: input should be greater than or equal to 1"),
        (LEAST + "parameters: {m: 3}\n", "mine.yaml: parameters.m = 3: input should be a valid dictionary"),
        (LEAST + "parameters: {m: {lr: .inf}}\n", "mine.yaml: parameters.m.lr = inf: input should be a finite number"),
        (LEAST + "parameters: {m: {lrs: [1, .nan]}}\n", "mine.yaml: parameters.m.lrs = nan: input should be a finite"),
        (LEAST.replace("backbones: b\n", ""), "mine.yaml: the key 'backbones' is missing; a suite has "),
        ("- a\n- b\n", "mine.yaml: a suite file is a mapping with the keys summary, datasets, backbones, methods"),
        ("", "mine.yaml: a suite file is a mapping with the keys "),
        ("datasets: [d]\nbackbones: [b\nmethods: m\n", "mine.yaml, line 3: not valid YAML: "),
        ("datasets: d\n\tbackbones: b\n", "mine.yaml, line 2: not valid YAML: "),
        (LEAST + "seeds: [0]\nseeds: [1]\n", "mine.yaml, line 6: not valid YAML: the key 'seeds' is there twice"),
    ],
)
def test_a_mistake_is_answered_with_its_place_and_what_is_allowed(complaint, content, expected):
    assert expected in complaint(content)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"datasets: \xff\xfe")
    with pytest.raises(UserError, match=r"suite file .*mine\.yaml cannot be read"):
        load_suite(str(file), SHIPPED)


def test_a_missing_file_and_an_unknown_name_are_told_apart(tmp_path):
    with pytest.raises(UserError, match=r"suite file .*nowhere\.yaml cannot be read: No such file or directory"):
        load_suite(str(tmp_path / "nowhere.yaml"), SHIPPED)
    with pytest.raises(UserError, match=r"unknown suite 'quik': did you mean quick\?"):
        load_suite("quik", SHIPPED)
    with pytest.raises(UserError, match=r"unknown suite 'zzz': known: .*cifar10-small.*path of a \.yaml file"):
        load_suite("zzz", SHIPPED)


def test_a_suite_name_that_two_plugins_ship_is_refused_with_both_paths(tmp_path):
    files = [tmp_path / place / "tiny.yaml" for place in ("one", "two")]
    with pytest.raises(UserError) as caught:
        load_suite("tiny", {"tiny": files})
    assert all(str(file) in str(caught.value) for file in files)


# --- the command line's part


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

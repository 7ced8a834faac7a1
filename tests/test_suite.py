"""Suite files: the shipped ones, their defaults, and how mistakes are answered."""

from dataclasses import replace

import pytest

from mmc_bench.errors import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.plugin.versions import OWN_DISTRIBUTION
from mmc_bench.results.settings import ConnectSettings, DataSettings, QuadraticSettings, Recipe
from mmc_bench.running.runner import check_plugins
from mmc_bench.suites.plan import make_plan
from mmc_bench.suites.suite import load_suite

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


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_suite_loads_and_plans(name):
    suite = load_suite(name, SHIPPED)
    plan = make_plan(suite, Registry.discover())
    assert suite.name == name and suite.summary
    tried_on = {trial.pretraining.key for trial in plan.trials}
    ranked = [pretraining for pretraining in plan.pretrainings if pretraining.key not in tried_on]
    assert ranked and len(plan.cells) == len(ranked) * len(suite.methods)
    assert bool(plan.trials) == (suite.tune is not None)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_suite_gives_all_methods_parameters_that_they_have(name):
    """A run relies on it: of the default suite it does not check our own methods' parameters beforehand."""
    registry = Registry.discover()
    suite = replace(load_suite(name, SHIPPED), methods=("*",), pairs=(), tune=None)
    check_plugins(make_plan(suite, registry))
    wrong = make_plan(replace(suite, parameters={**suite.parameters, "ft-medium": {"rl": 1}}), registry)
    with pytest.raises(UserError, match="method ft-medium has no parameter 'rl'"):
        check_plugins(wrong)
    check_plugins(wrong, trusted=OWN_DISTRIBUTION)
    wrong = make_plan(replace(suite, backbones=("resnet8",), parameters={"resnet8": {"rl": 1}}), registry)
    with pytest.raises(UserError, match="backbone resnet8 has no parameter 'rl'"):
        check_plugins(wrong, trusted=OWN_DISTRIBUTION)


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


@pytest.mark.slow
def test_cifar10_small_is_the_suite_that_the_project_promises():
    suite = load_suite("cifar10-small", SHIPPED)
    assert (suite.datasets, suite.backbones, suite.cue_rates) == (("cifar10-box",), ("resnet8",), (0.8,))
    assert (suite.seeds, suite.threads) == ((0,), 1)
    assert (suite.pretrain.epochs, suite.pretrain.batch_size) == (10, 128)
    assert suite.data == DataSettings(pretrain_images=10_000, clean_images=1_000, validation_images=1_000)


TABLE_1 = ("ft-medium", "ft-small", "llr", "lpft", "cbft")
TABLE_3 = ("cbft", "cbft-no-barrier", "cbft-no-invariance")
DATASETS = ("cifar10-box", "cifar100-box-color", "dominoes")


@pytest.mark.slow
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
        (
            LEAST + "zzz: 1\n",
            "mine.yaml: unknown key 'zzz': known: axes, backbones, connect, cue_rates, data, datasets,",
        ),
        (LEAST + "pretrain: {epoch: 3}\n", "mine.yaml: unknown key 'pretrain.epoch': did you mean epochs"),
        (LEAST + "data: {clean: 3}\n", "mine.yaml: unknown key 'data.clean': did you mean clean_set or clean_cues"),
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
        (LEAST + "seeds: []\n", "mine.yaml: seeds = []: a list of 1 or more is wanted"),
        (LEAST.replace("[d]", "[]"), "mine.yaml: datasets = []: a list of 1 or more is wanted"),
        (LEAST.replace("[d]", "{d: 1}"), "mine.yaml: datasets = {'d': 1}: a list is wanted"),
        (LEAST + "pretrain: 5\n", "mine.yaml: pretrain = 5: input should be a dictionary"),
        (LEAST + "pretrain: {lr: fast}\n", "mine.yaml: pretrain.lr = 'fast': input should be a valid number"),
        (LEAST + "data: {minority: no}\n", "data.minority = 'no': input should be 'uncued' or 'conflicting'"),
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

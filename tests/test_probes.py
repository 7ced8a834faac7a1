"""What became of a cue in a model: the measurements, each against a slow version, and the words for planted models."""

import copy
import json
from dataclasses import dataclass, replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from conftest import PLUGINS
from torch import nn
from torch.nn import functional as F

import mmc_bench
from mmc_bench.auditing.page import WORDS as AUDIT_WORDS
from mmc_bench.data.contract import LabelledImages, has_cue
from mmc_bench.data.splits import derive_experiment
from mmc_bench.errors import FailedError
from mmc_bench.landscape.barriers import connectivity
from mmc_bench.landscape.paths import end_scores, evaluate_path, linear_path
from mmc_bench.mechanisms.attribution import attribution
from mmc_bench.mechanisms.measure import flips, half_cued, measure_hold
from mmc_bench.mechanisms.reading import readability
from mmc_bench.mechanisms.stages import MOST_VALUES, stage_features, stages_of, vectors
from mmc_bench.mechanisms.verdicts import HALF, HIDDEN, KEPT, REMOVED, UNDECIDED, UNLINKED, WORDS, verdict, way_back
from mmc_bench.results.jobs import Checkpoint, Probe
from mmc_bench.results.metrics import SPLITS, Score
from mmc_bench.results.probes import Hold
from mmc_bench.results.settings import DataSettings
from mmc_bench.running.launch import Computing
from mmc_bench.running.probing import Prober
from mmc_bench.testing.tiny_data import MANY, SQUARE, tiny_experiment
from mmc_bench.training import Backbone, evaluate
from mmc_bench.training.backbone import logits

CLASSES = 4


class Corners:
    """Images whose label is a bright row, and whose cue is a bright block above it."""

    num_classes = CLASSES

    def __init__(self):
        self.train, self.test = self._part(600, 0), self._part(200, 1)

    def _part(self, n, seed):
        labels = torch.arange(n) % CLASSES
        images = torch.randint(120, (n, 1, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        images[torch.arange(n), :, 2 + labels] += 60
        return LabelledImages(images, labels, labels.clone())

    def random_cue(self, n, generator):
        return torch.randint(CLASSES, (n,), generator=generator)

    def render(self, images, cue):
        columns = torch.arange(8) // 2 == cue[:, None]  # (n, 8)
        block = (torch.arange(8) < 2)[:, None] & columns[:, None]  # (n, 8, 8)
        return torch.where(block[:, None], 1.0, images)


class Net(Backbone):
    """A convolution, a pool, and a hidden layer, without BatchNorm."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.num_classes, self.num_features = CLASSES, 32
        self.conv, self.hidden, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(128, 32), nn.Linear(32, CLASSES)

    def forward_features(self, x):
        return F.max_pool2d(self.conv(x).relu(), 2)

    def forward_head(self, x, pre_logits=False):
        x = self.hidden(x.flatten(1)).relu()
        return x if pre_logits else self.head(x)


def trained(model, images, steps=120, lr=0.01, decay=3.0, of=None):
    """Train with so much weight decay that what is of no use is forgotten."""
    optimizer = torch.optim.AdamW((of or model).parameters(), lr=lr, weight_decay=decay)
    for x, y in islice(images.stream(64, torch.Generator().manual_seed(0)), steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def data():
    return derive_experiment(Corners(), DataSettings(clean_images=20, validation_images=20), 0.8, seed=0)


@dataclass(frozen=True)
class Planted:
    """Models θ_C, θ_NC, and those whose word is known."""

    cued: Net
    cue_free: Net
    models: dict[str, Net]


@pytest.fixture(scope="module")
def planted(data):
    torch.set_num_threads(1)
    cued, other = (trained(Net(seed), data.pretraining) for seed in (0, 5))
    cue_free, another = (trained(Net(seed), data.pretraining_nc) for seed in (0, 7))

    def blind(model):
        """Refit the head on images whose cue tells nothing."""
        model = copy.deepcopy(model)
        model.reset_classifier(CLASSES)
        return trained(model, data.train_splits["RC"], 300, lr=0.1, decay=0.0, of=model.head)

    tuned = trained(copy.deepcopy(cued), data.all_cued, 20, lr=0.001)
    return Planted(cued, cue_free, {REMOVED: another, HIDDEN: blind(cued), UNLINKED: blind(other), KEPT: tuned})


@pytest.mark.slow
@pytest.mark.parametrize("word", (REMOVED, HIDDEN, UNLINKED, KEPT))
def test_a_planted_model_of_each_kind_gets_its_word(planted, data, word):
    model = planted.models[word]
    ends = [end_scores(end, data.rendered, data.pretraining_nc, {}) for end in (planted.cued, model)]
    path = linear_path(planted.cued, model)
    along = evaluate_path(path, model, data.rendered, data.pretraining_nc, 5, ends)
    barrier, tolerance = way_back(connectivity(*along))
    own, *references = (measure_hold(one, data) for one in (model, planted.cued, planted.cue_free))
    assert verdict(own, *references, barrier, tolerance).word == word


def test_the_ends_of_a_path_alone_tell_no_barrier_on_the_way_back():
    scores = {split: [Score(accuracy=0.9, loss=0.2)] * 2 for split in SPLITS}
    assert way_back(connectivity([0, 1], scores))[0] is None
    assert way_back(connectivity([0, 0.5, 1], {split: [*own, own[0]] for split, own in scores.items()}))[0] == 0


@pytest.mark.slow
def test_hidden_and_unlinked_models_classify_images_whatever_their_cue(planted, data):
    for word in (HIDDEN, UNLINKED):
        assert evaluate(planted.models[word], data.splits["RC"]).accuracy > 0.9
    assert evaluate(planted.cued, data.splits["RC"]).accuracy < 0.85


@pytest.mark.slow
def test_a_head_that_is_refitted_changes_no_reading(planted, data):
    read = [measure_hold(model, data).read for model in (planted.cued, planted.models[HIDDEN])]
    assert read[0] == read[1]


# --- each measurement


def test_flips_are_those_of_images_whose_swapped_cue_is_another(planted, data):
    cued, swapped = data.splits["C"], data.splits["RC"]
    changed = []
    for row in range(len(cued)):
        if cued.cues[row] != swapped.cues[row]:
            pair = [images.batch(slice(row, row + 1))[0] for images in (cued, swapped)]
            before, after = (int(planted.cued(x).argmax()) for x in pair)
            changed.append(before != after)
    assert 100 < len(changed) < len(cued)
    assert flips(planted.cued, cued, swapped, data) == pytest.approx(sum(changed) / len(changed))


class Linear(nn.Module):
    """Logits Wx of flattened images."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


def test_attribution_is_exact_for_a_linear_model():
    data = tiny_experiment(SQUARE, torch.device("cpu"))  # the cue is a row of 32 pixels in images of 32x32
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 3, 32, 32, generator=generator)
    model = Linear(weight.flatten(1))
    cued, cue_free = data.splits["C"], data.splits["NC"]
    shares = []
    for row, cue in enumerate(cued.cues.tolist()):
        predicted = int(model(cued.batch(slice(row, row + 1))[0]).argmax())
        saliency = weight[predicted].abs().sum(0)  # (32, 32)
        shares.append(float(saliency[cue].sum() / saliency.sum()))
    found = attribution(model, cued, cue_free)
    assert found.share == pytest.approx(sum(shares) / len(shares), rel=1e-5)
    assert found.pixels == pytest.approx(1 / 32)
    assert attribution(Linear(torch.zeros(10, 3072)), cued, cue_free).share is None


def test_a_probe_reads_what_is_there_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    classes, wanted = torch.randint(5, (2, 500), generator=generator)
    noise = torch.randn(2, 500, 20, generator=generator)
    in_order = noise + 20 * torch.stack([classes, wanted])[..., None]  # five steps along one line
    train, test = ({"noise": noise[k], "told": in_order[k], "constant": torch.ones(500, 3)} for k in (0, 1))
    read = readability(train, classes, test, wanted)
    assert read["told"] > 0.99
    assert abs(read["noise"] - 0.2) < 0.06
    assert read["constant"] <= 0.3


@pytest.mark.slow
def test_cue_codes_that_make_no_classes_are_read_as_present_or_not():
    data = tiny_experiment(MANY, torch.device("cpu"))  # codes of two numbers
    torch.manual_seed(0)
    from mmc_bench.testing.tiny_data import TinyNet

    hold = measure_hold(TinyNet(100, (3, 32, 32)), data)
    assert hold.presence and hold.classes == 2 and hold.chance == pytest.approx(0.5)
    assert hold.cue_pixels == pytest.approx(1 / 32, rel=0.1)
    sets = data.train_splits
    images = half_cued(sets["RC"], sets["NC"])
    assert has_cue(images.cues[:10]).tolist() == [True, False] * 5  # a held-out part of them has both
    assert images.labels.equal(sets["RC"].labels) and images.labels.equal(sets["NC"].labels)


# --- stages


def test_maps_are_averaged_in_cells_so_that_places_can_be_told():
    maps = torch.zeros(2, 3, 8, 8)
    maps[0, 1, 0, 0], maps[1, 1, 7, 7] = 4.0, 4.0
    found = vectors(maps, nn.Identity()).unflatten(1, (3, 4, 4))
    assert found[0].nonzero().tolist() == [[1, 0, 0]] and found[1].nonzero().tolist() == [[1, 3, 3]]
    assert found[0, 1, 0, 0] == 1.0  # the mean of 2x2 pixels
    assert vectors(torch.zeros(2, 3, 2, 2), nn.Identity()).shape == (2, 12)
    assert vectors(torch.zeros(2, 2048, 8, 8), nn.Identity()).shape[1] <= MOST_VALUES


def test_tokens_and_channels_that_come_last_are_maps_too():
    maps = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    transformer = nn.Identity()
    transformer.num_prefix_tokens = 1
    tokens = torch.cat([torch.zeros(2, 1, 3), maps.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(vectors(tokens, transformer), vectors(maps, nn.Identity()))
    last = nn.Identity()
    last.output_fmt = "NHWC"
    assert torch.equal(vectors(maps.permute(0, 2, 3, 1), last), vectors(maps, nn.Identity()))


def test_stages_are_timm_s_own_or_end_where_maps_change_their_size(data):
    images = data.splits["NC"].first(4)
    model = Net(0)
    assert stages_of(model, images) == ["conv"]
    found = stage_features(model, images, ["conv"])
    assert [*found] == ["conv", "features"] and found["conv"].shape == (4, 8 * 16)
    head = model.get_classifier()(found["features"])
    assert torch.allclose(head, logits(model, images.batch(slice(4))[0]), atol=1e-6)
    model.feature_info = [{"module": "hidden"}]
    assert stages_of(model, images) == ["hidden"]


# --- verdicts


def hold(read, flipped=0.0):
    return Hold(read={"features": read}, classes=4, chance=0.25, flips=flipped, attribution=0.1, cue_pixels=0.1)


@pytest.mark.parametrize(
    ("read", "flipped", "barrier", "word"),
    [
        (0.9, 0.16, 0.0, KEPT),
        (0.2, 0.16, 9.0, KEPT),
        (0.9, 0.14, 0.0, HIDDEN),
        (0.61, 0.0, 0.05, HIDDEN),
        (0.61, 0.0, 0.051, UNLINKED),
        (0.59, 0.0, 9.0, REMOVED),
        (0.1, 0.0, 0.0, REMOVED),
        (0.9, 0.0, None, None),
    ],
)
def test_words_follow_the_documented_thresholds(read, flipped, barrier, word):
    assert verdict(hold(read, flipped), hold(1.0, 0.9), hold(0.2, 0.05), barrier, 0.05).word == word


def test_removed_is_explained_by_its_own_threshold():
    assert "less than half of the lead" in WORDS[REMOVED]
    assert f"less than {100 * HALF:.0f}" in AUDIT_WORDS[REMOVED]


def test_nothing_is_guessed_where_the_references_read_alike():
    found = verdict(hold(0.9), hold(0.95, 0.9), hold(0.9, 0.0), 0.0, 0.05)
    assert (found.word, found.left) == (UNDECIDED, None)
    assert verdict(hold(0.9, 0.5), hold(0.95, 0.9), hold(0.9, 0.0), 0.0, 0.05).word == KEPT


def test_a_difference_that_equals_its_threshold_is_on_the_side_that_readers_are_told():
    assert 0.7 - 0.6 < 0.1 < 0.4 - 0.3
    assert verdict(hold(0.6), hold(0.7, 0.9), hold(0.6, 0.0), 0.0, 0.05).word == REMOVED  # ten points are enough
    assert verdict(hold(0.2, 0.4), hold(1.0, 0.9), hold(0.2, 0.3), 0.0, 0.05).word == REMOVED  # kept: over ten points
    assert verdict(hold(0.65), hold(0.7, 0.9), hold(0.6, 0.0), 0.0, 0.05).word == HIDDEN  # half is not less than half


def test_a_probe_s_key_is_that_of_weights_and_data_alone(cell):
    probe = Probe(versions={"probe": "1"}, model=Checkpoint(label="a", weights_sha256="1"), experiment=cell.pretraining)
    renamed = replace(probe, model=Checkpoint(label="b", weights_sha256="1", record="2"))
    assert probe.key == renamed.key
    assert probe.key == replace(probe, experiment=cell.pretraining.with_changes(cue_rate=0.5)).key
    assert probe.key != replace(probe, experiment=cell.pretraining.with_changes(seed=9)).key
    assert probe.key != replace(probe, model=Checkpoint(label="a", weights_sha256="2")).key


# --- the command, and the function


@pytest.mark.slow
def test_cells_with_weights_are_probed_once_and_the_others_named(bench, monkeypatch):
    assert bench.tiny("--seeds", 0, "--methods", "tiny-ft", "--keep-weights").code == 0
    assert bench.tiny("--seeds", 0, "--methods", "tiny-still").code == 0
    first = bench("probe", "--format", "json", "--plot")
    assert first.code == 0, first.err
    rows = json.loads(first.out)
    assert [row["method"] for row in rows] == ["pretrained", "cue-free", "tiny-ft"]
    assert "tiny-still): delete its record" in first.err and "--keep-weights" in first.err
    assert {path.suffix for path in (bench.folder / "figures").iterdir()} == {".png", ".svg", ".csv"}
    record = bench.records("results/probes")
    assert len(record) == 3 and all(one["hold"]["read"]["features"] <= 1 for one in record.values())
    monkeypatch.setattr("mmc_bench.stages.probe.probe_weights", None)
    second = bench("probe", "--format", "json")
    assert (second.code, second.out) == (0, first.out)
    assert "nothing computed" in second.err
    shown = bench("table", "--format", "csv").out
    assert "tiny-net,0.9,tiny-still" in shown and "tiny-net,0.0," not in shown  # a reference is no experiment


def test_a_probe_whose_references_could_not_be_trained_says_why(monkeypatch):
    stopped = SimpleNamespace(interrupted=False, stopped="results folder results cannot be written", failures=[])
    monkeypatch.setattr("mmc_bench.running.probing.run_session", lambda *arguments: stopped)
    prober = object.__new__(Prober)
    vars(prober).update(_progress=False, _computing=Computing())
    with pytest.raises(FailedError, match="references could not be trained: results folder results cannot be written"):
        prober._pretrain(None)


@pytest.mark.slow
def test_rows_come_in_one_order_however_cells_are_selected(bench):
    words = "--seeds", 0, "--methods", "tiny-still,tiny-ft"
    assert bench.tiny(*words, "--keep-weights").code == 0
    rows = bench("probe", "--format", "csv").out
    assert rows.index("tiny-ft") < rows.index("tiny-still")
    assert bench("probe", "--format", "csv", "--suite", "tiny.yaml", *words).out == rows


@pytest.mark.slow
def test_without_weights_a_probe_says_what_to_do(bench):
    assert bench.tiny("--seeds", 0, "--methods", "tiny-still").code == 0
    lost = bench("probe")
    assert lost.code == 5 and "1 cell keeps no weights" in lost.err and "--keep-weights" in lost.err
    assert bench("probe", "--seeds", 3).code == 5  # nothing is selected
    for command in ("probe", "table", "plot"):
        misspelt = bench(command, "--methods", "tiny-stil")
        assert misspelt.code == 5 and "none has method 'tiny-stil': did you mean tiny-still?" in misspelt.err


@pytest.mark.slow
def test_datasets_with_groups_are_refused_in_a_sentence(bench):
    run = bench.tiny("--datasets", "grouped-tiny", "--seeds", 0, "--methods", "tiny-still", "--keep-weights")
    assert run.code == 0, run.err
    refused = bench("probe")
    assert refused.code == 4 and "grouped-tiny: groups and no counterfactuals" in refused.err


@pytest.mark.slow
def test_models_in_memory_are_probed_with_the_barrier_to_the_pretrained_one(bench, monkeypatch):
    monkeypatch.chdir(bench.folder)
    task = mmc_bench.task(suite="tiny.yaml", plugins_dir=PLUGINS, seed=0, progress=False)
    probed = mmc_bench.probe({"same": task.pretrained}, task)
    frame = probed.to_frame().set_index("method")
    assert frame.loc["same", "barrier"] == 0 and frame.loc["same", "read"] == frame.loc["pretrained", "read"]
    assert probed.computed == 2  # the same weights as θ_C's, and θ_NC
    assert "tiny-set · tiny-net" in probed.table() and "<img" in probed._repr_html_()
    with pytest.raises(mmc_bench.UserError, match=r"probe takes torch\.nn\.Modules"):
        mmc_bench.probe("model.pt", task)

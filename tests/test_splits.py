"""The sets of one experiment, on the digits and on fake images whose pixels spell their own number."""

import itertools

import pytest
import torch
from helpers.numbered_images import K, contents, derived, fake_dataset, numbers, with_cue_channel
from mmc_bench_plugins.box_cue.dataset import DigitsBox
from scipy.stats import chi2_contingency, chisquare

from mmc_bench import UserError
from mmc_bench.data.cued_images import CuedImages, cued_images
from mmc_bench.data.sources import Sources


@pytest.fixture(scope="module")
def digits():
    dataset = DigitsBox()
    dataset.load(Sources())
    return dataset


def test_digits_are_split_into_997_150_150_and_500_images(digits):
    data = derived(digits, cue_rate=0.95)
    assert [len(part) for part in (data.pretraining, data.pretraining_nc, data.clean, data.validation)] == [
        997,
        997,
        150,
        150,
    ]
    assert {name: len(split) for name, split in data.splits.items()} == {
        "NC": 500,
        "C": 500,
        "RC": 500,
        "RI": 500,
    }
    assert data.input_shape == (3, 16, 16) and data.num_classes == 10


@pytest.mark.parametrize("form", ["rendered", "held"])
@pytest.mark.parametrize("rows", [slice(0, 8), torch.arange(8)])
def test_a_network_that_changes_its_input_in_place_leaves_the_images_as_they_are(digits, form, rows):
    split = derived(digits).splits["C"]
    split = split.rendered() if form == "held" else split
    before = split.batch(rows)[0].clone()
    split.batch(rows)[0].mul_(0)
    next(split.in_order(8))[0].add_(1)
    assert torch.equal(split.batch(rows)[0], before)


def test_held_out_digits_are_disjoint_from_each_other_and_from_pretraining(digits):
    data = derived(digits)
    parts = [set(part.index.tolist()) for part in (data.pretraining, data.clean, data.validation)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1297


def test_digits_carry_the_red_box_of_their_label_on_c_and_are_bare_on_nc(digits):
    data = derived(digits)
    starts = (0, 6, 13)
    bare, _ = next(data.splits["NC"].in_order(500))
    cued, labels = next(data.splits["C"].in_order(500))
    for image, with_cue, label in zip(bare, cued, labels.tolist()):
        expected = image.clone()
        if label < 9:
            row, column = starts[label // 3], starts[label % 3]
            for i in range(row, row + 3):
                for j in range(column, column + 3):
                    expected[:, i, j] = torch.tensor([1.0, -1.0, -1.0])
        assert torch.equal(with_cue, expected)
    shown = data.splits["NC"].index
    assert torch.allclose(bare.double(), digits.test.images[shown].double() / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_sets_are_disjoint_and_with_pretraining_make_up_the_training_images(seed):
    data = derived(seed=seed)
    parts = [numbers(part) for part in (data.clean, data.validation, data.pretraining)]
    assert [len(part) for part in parts] == [10, 8, 42]
    assert sorted(itertools.chain(*parts)) == list(range(60))


def test_held_out_sets_are_random_samples_fixed_by_the_seed():
    dataset = fake_dataset(train=900, clean=300, validation=300)
    first, again, other = (derived(dataset, seed=seed) for seed in (1, 1, 2))
    assert numbers(first.clean) == numbers(again.clean) != numbers(other.clean)
    assert numbers(first.validation) == numbers(again.validation) != numbers(other.validation)
    thirds = [sum(number // 300 == third for number in numbers(first.clean)) for third in range(3)]
    assert chisquare(thirds).pvalue > 0.001


def test_a_dataset_that_names_no_sizes_holds_out_2500_images_twice():
    dataset = fake_dataset(train=5010)
    del dataset.clean_images, dataset.validation_images
    data = derived(dataset)
    assert [len(part) for part in (data.clean, data.validation, data.pretraining)] == [2500, 2500, 10]


def test_test_images_can_be_cut_to_the_first_in_their_order():
    whole, cut = derived(), derived(test_images=7)
    assert {name: len(images) for name, images in cut.splits.items()} == dict.fromkeys(("NC", "C", "RC", "RI"), 7)
    assert numbers(cut.splits["NC"]) == numbers(whole.splits["NC"])[:7]
    assert {*numbers(cut.splits["RI"])} <= {*numbers(cut.splits["NC"])}
    assert numbers(cut.pretraining) == numbers(whole.pretraining)


def test_settings_override_the_datasets_own_sizes():
    data = derived(clean_images=5, validation_images=6, pretrain_images=20)
    parts = [numbers(part) for part in (data.clean, data.validation, data.pretraining)]
    assert [len(part) for part in parts] == [5, 6, 20]
    assert len(set(itertools.chain(*parts))) == 31


@pytest.mark.parametrize("bound", [None, 12])
def test_the_clean_set_can_be_the_pretraining_images_without_their_cues(bound):
    data = derived(cue_rate=1.0, clean_set="pretraining", pretrain_images=30, clean_images=bound)
    assert numbers(data.clean) == numbers(data.pretraining)[:bound]
    assert {cue for _, cue, _ in contents(data.clean)} == {-1}
    assert {cue for _, cue, _ in contents(data.pretraining)} == {0, 1, 2}
    assert not {*numbers(data.clean)} & {*numbers(data.validation)}
    assert len(derived(clean_set="pretraining").pretraining) == 52  # all but the 8 of the validation set


def test_fully_cued_images_are_those_of_all_training_sets_each_with_its_own_cue():
    data = derived(cue_rate=0.0, pretrain_images=20)
    expected = sorted([*numbers(data.pretraining), *numbers(data.clean), *numbers(data.validation)])
    assert numbers(data.fully_cued) == expected and len(expected) == 38
    assert all(cue == label for _, cue, label in contents(data.fully_cued))


@pytest.mark.parametrize("cue_rate", [0.0, 0.3, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_cue_goes_to_the_first_of_each_class_in_data_set_order(cue_rate, seed):
    dataset = fake_dataset()
    data = derived(dataset, cue_rate, seed)
    chosen, labels = set(numbers(data.pretraining)), dataset.train.labels.tolist()
    expected = {}
    for k in range(K):
        members = [number for number in range(60) if number in chosen and labels[number] == k]
        quota = int(cue_rate * len(members))
        expected.update({number: k if rank < quota else -1 for rank, number in enumerate(members)})
    assert {number: cue for number, cue, _ in contents(data.pretraining)} == expected


@pytest.mark.parametrize("part", ["train", "test", "other_dim"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int8, torch.float32])
def test_cue_codes_of_a_type_without_negative_numbers_are_refused(part, dtype):
    dataset = fake_dataset()
    dataset.other_tests = {"other_dim": dataset.test}
    parts = {"train": dataset.train, "test": dataset.test, **dataset.other_tests}
    changed = parts[part].with_cues(parts[part].cues.to(dtype))
    if part == "other_dim":
        dataset.other_tests = {part: changed}
    else:
        setattr(dataset, part, changed)
    if dtype.is_signed:
        assert (derived(dataset, 0.5).splits["NC"].cues == -1).all()
        return
    with pytest.raises(UserError, match=rf"^the {part} images have (uint8|bool) cue codes: make them int64, since -1"):
        derived(dataset, 0.5)


def test_the_uncued_pretraining_set_has_the_same_images_and_labels():
    data = derived()
    with_cue, without = contents(data.pretraining), contents(data.pretraining_nc)
    assert [(number, label) for number, _, label in with_cue] == [(number, label) for number, _, label in without]
    assert all(cue == -1 for _, cue, _ in without)


def test_labels_stay_with_their_images_and_held_out_images_carry_no_cue():
    dataset = fake_dataset()
    data = derived(dataset)
    for part in (data.clean, data.validation, data.pretraining):
        assert all(label == dataset.train.labels[number] for number, _, label in contents(part))
    assert all(cue == -1 for part in (data.clean, data.validation) for _, cue, _ in contents(part))


def test_the_cue_rate_changes_nothing_but_the_cues():
    low, high = derived(cue_rate=0.1), derived(cue_rate=0.9)
    assert numbers(low.pretraining) == numbers(high.pretraining)
    assert contents(low.clean) == contents(high.clean)
    assert all(contents(low.splits[name]) == contents(high.splits[name]) for name in low.splits)


@pytest.mark.parametrize("in_class_order", [False, True])
def test_the_first_images_of_a_set_are_a_sample_of_all_classes(in_class_order):
    # A folder's images come class by class; their first few must not stand for a set's BatchNorm statistics.
    dataset = fake_dataset(train=900, test=900, clean=2, validation=2, in_class_order=in_class_order)
    data = derived(dataset)
    for images in (data.pretraining_nc, data.pretraining, data.splits["NC"], data.splits["C"]):
        counts = torch.bincount(images.first(300).labels, minlength=K)
        assert chisquare(counts.numpy()).pvalue > 0.001


def test_nc_shows_every_test_image_without_a_cue_and_c_with_its_labels():
    dataset = fake_dataset()
    splits = derived(dataset).splits
    labels = dataset.test.labels.tolist()
    assert sorted(contents(splits["NC"])) == [(number, -1, labels[number]) for number in range(30)]
    assert sorted(contents(splits["C"])) == [(number, labels[number], labels[number]) for number in range(30)]


@pytest.mark.slow
def test_rc_keeps_image_and_label_and_draws_the_cue_independently_of_the_label():
    dataset = fake_dataset(test=3000)
    rows = contents(derived(dataset).splits["RC"])
    assert sorted((number, label) for number, _, label in rows) == list(enumerate(dataset.test.labels.tolist()))
    table = torch.zeros(K, K)
    for _, cue, label in rows:
        table[label, cue] += 1
    assert chi2_contingency(table.numpy()).pvalue > 0.001
    assert chisquare(table.sum(0).numpy()).pvalue > 0.001


@pytest.mark.slow
def test_ri_keeps_cue_and_label_and_draws_the_image_independently_of_both():
    dataset = fake_dataset(test=3000)
    splits = derived(dataset).splits
    rows = contents(splits["RI"])
    assert [(cue, label) for _, cue, label in rows] == [(cue, label) for _, cue, label in contents(splits["C"])]
    table = torch.zeros(K, K)
    for number, _, label in rows:
        table[label, dataset.test.labels[number]] += 1
    assert chi2_contingency(table.numpy()).pvalue > 0.001
    tenths = [sum(number // 300 == tenth for number, _, _ in rows) for tenth in range(10)]
    assert chisquare(tenths).pvalue > 0.001


@pytest.mark.parametrize("name", ["RC", "RI"])
def test_random_splits_are_the_same_for_one_seed_and_differ_between_seeds(name):
    def drawn(seed):
        splits = derived(seed=seed).splits
        return sorted(zip(numbers(splits["C"]), contents(splits[name]), strict=True))  # by test image

    first, again, other = (drawn(seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_all_sets_share_one_copy_of_the_images():
    dataset = fake_dataset()
    data = derived(dataset)
    train = (data.pretraining, data.pretraining_nc, data.clean, data.validation, data.clean.first(3))
    assert {part.storage.data_ptr() for part in train} == {dataset.train.images.data_ptr()}
    assert {split.storage.data_ptr() for split in data.splits.values()} == {dataset.test.images.data_ptr()}


def test_asking_for_batches_leaves_the_stored_images_unchanged():
    dataset = fake_dataset()
    before = dataset.train.images.clone()
    data = derived(dataset)
    list(data.pretraining.shuffled(8, torch.Generator().manual_seed(0)))
    assert torch.equal(dataset.train.images, before)


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(24, 8, [8, 8, 8]), (26, 8, [8, 8, 8, 2]), (5, 8, [5])])
def test_an_epoch_shows_every_image_once_with_its_own_label_and_cue(n, batch_size, sizes):
    images = derived(cue_rate=0.5).pretraining.first(n)
    batches = list(images.shuffled(batch_size, torch.Generator().manual_seed(0)))
    assert [len(labels) for _, labels in batches] == sizes
    assert images.steps(batch_size) == len(sizes)
    seen = []
    for x, y in batches:
        no_cue = torch.full((len(y),), -1)  # the images have been drawn
        seen += contents(CuedImages(x, torch.arange(len(y)), y, no_cue, with_cue_channel))
    assert sorted(seen) == sorted(contents(images))


def test_a_subset_holds_the_chosen_rows_in_their_order_and_as_often_as_chosen():
    images = derived(cue_rate=0.5).pretraining
    rows = torch.tensor([7, 2, 2, 30])
    expected = [contents(images)[row] for row in rows.tolist()]
    assert contents(images.subset(rows)) == expected
    assert contents(images.rendered().subset(rows)) == expected


def test_joined_sets_come_one_after_the_other_with_their_own_cues():
    data = derived(cue_rate=0.5)
    assert contents(data.clean.joined(data.pretraining)) == contents(data.clean) + contents(data.pretraining)


def test_sets_of_different_images_are_not_joined():
    data = derived()
    with pytest.raises(ValueError, match="only sets of one dataset's training images"):
        data.clean.joined(data.splits["NC"])


def test_the_rows_of_an_epoch_are_those_that_its_batches_show():
    images = derived().pretraining
    rows = images.shuffled_rows(8, torch.Generator().manual_seed(0))
    batches = images.shuffled(8, torch.Generator().manual_seed(0))
    for chosen, (x, y) in zip(rows, batches, strict=True):
        assert torch.equal(images.batch(chosen)[0], x) and torch.equal(images.labels[chosen], y)


def test_a_last_batch_of_one_image_is_left_out():
    images = derived().pretraining.first(25)
    batches = list(images.shuffled(8, torch.Generator().manual_seed(0)))
    assert [len(labels) for _, labels in batches] == [8, 8, 8]
    assert images.steps(8) == 3


def test_epochs_differ_in_order_and_a_stream_goes_from_one_to_the_next():
    images = derived().pretraining_nc.first(12)
    generator = torch.Generator().manual_seed(0)
    stream = images.stream(4, generator)
    orders = [torch.cat([next(stream)[0][:, 0, 0, 1] for _ in range(3)]).tolist() for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) and len(set(orders[0])) == 12
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    "settings",
    [{"clean_images": 59}, {"clean_images": 40, "validation_images": 40}, {"pretrain_images": 43}],
)
def test_too_few_training_images_are_an_error_that_names_the_sizes(settings):
    with pytest.raises(UserError, match=r"60 training images are too few for \d+ clean, \d+ validation and \d+"):
        derived(**settings)


def test_a_dataset_is_never_asked_to_render_an_image_without_a_cue():
    dataset, asked = fake_dataset(), []

    def noted(images, cue):
        asked.append(cue)
        return with_cue_channel(images, cue)

    dataset.render = noted
    data = derived(dataset, cue_rate=0.5)
    for images in (data.pretraining_nc, data.clean, data.validation, data.splits["NC"]):
        list(images.in_order())
    assert asked == []
    mixed = contents(data.pretraining)
    assert torch.cat(asked).min() >= 0  # the fake rendering, too, refuses negative codes
    assert {cue for _, cue, _ in mixed} == {-1, 0, 1, 2}


@pytest.mark.parametrize("codes", [[0, 2, -1, 1], [-1] * 4, [2, 1, 0, 0]])
@pytest.mark.parametrize("numbers_of_a_code", [1, 3])
def test_each_image_has_its_cue_or_none_whatever_else_is_in_the_batch(codes, numbers_of_a_code):
    dataset = fake_dataset()
    cues = torch.tensor(codes)
    if numbers_of_a_code > 1:
        dataset.render = lambda images, cue: with_cue_channel(images, cue[:, 0])
        cues = torch.stack([cues, -cues, cues], 1)  # the first number alone tells whether there is a cue
    rows = torch.arange(4)
    images = cued_images(dataset, dataset.train.images, rows, rows, cues)
    assert [cue for _, cue, _ in contents(images)] == codes
    for row, cue in enumerate(codes):
        alone = images.subset(torch.tensor([row])).batch(slice(None))[0]
        assert torch.equal(alone, images.batch(torch.tensor([row]))[0])
        assert alone[0, 1].unique().item() == cue


def test_images_without_a_cue_are_themselves_where_the_dataset_says_nothing_else():
    dataset = fake_dataset()
    del dataset.without_cue
    dataset.render = lambda images, cue: images + cue.view(-1, 1, 1, 1)
    rows = torch.arange(3)
    x, _ = cued_images(dataset, torch.zeros(3, 1, 2, 2), rows, rows, torch.tensor([2, -1, 0])).batch(slice(None))
    assert x[:, 0, 0, 0].tolist() == [2, 0, 0]

"""Cut-outs on scenes: pictures and places against loops over pixels, the neutral ground, and a run."""

import json
import pickle

import numpy as np
import pytest
import torch
from helpers.cut_outs import (
    PAIRS,
    SIDE,
    describe,
    described_images,
    drop,
    found_in,
    loaded,
    offer_of,
    pixels_of,
)
from helpers.kit import in_this_process
from helpers.pictures import pictures
from PIL import Image

from mmc_bench import UserError
from mmc_bench.data.splits import derive_experiment
from mmc_bench.data.stored import StoredImages
from mmc_bench.plugin.registry import Registry
from mmc_bench.results.settings import DataSettings
from mmc_bench.testing.conformance import properties_of, subject_of

SETTINGS = DataSettings(clean_images=4, validation_images=4)


@pytest.fixture
def folder(tmp_path):
    return described_images(tmp_path / "images")


# --- pictures


def over(opacity_image, ground):
    """Return a cut-out (H, W, 4) of bytes over a ground (H, W, 3) in [-1, 1], pixel by pixel, as (3, H, W)."""
    picture = np.zeros((3, SIDE, SIDE))
    for row in range(SIDE):
        for column in range(SIDE):
            alpha = opacity_image[row, column, 3] / 255
            for channel in range(3):
                colour = opacity_image[row, column, channel] / 127.5 - 1
                picture[channel, row, column] = alpha * colour + (1 - alpha) * ground[row, column, channel]
    return torch.from_numpy(picture).float()


@pytest.mark.slow
def test_every_split_and_set_is_what_a_loop_over_pixels_builds(folder):
    dataset, found = loaded(folder), found_in(folder)
    data = derive_experiment(dataset, SETTINGS, 0.5, seed=1)
    assert data.input_shape == (3, SIDE, SIDE)
    scenes = [*found.scenes["train"].names, *found.scenes["test"].names]
    first_test = len(found.scenes["train"].names)
    sets = {
        **{name: ("test", split) for name, split in data.splits.items()},
        "pretraining": ("train", data.pretraining),
    }
    for name, (part, split) in sets.items():
        images, labels = split.batch(slice(None))
        for row in range(len(split)):
            own, code = split.index[row].item(), split.cues[row].item()
            cut_out, scene = found.cutouts[part].names[own], scenes[code]
            if name != "RI":
                assert f"/{('ant', 'owl')[labels[row]]}/" in cut_out
            if code >= 0:
                assert (code >= first_test) == (part == "test")
            if name in ("C", "RI") or (name == "pretraining" and code >= 0):
                kinds = PAIRS[("ant", "owl")[labels[row]]]
                assert scene.split("/")[1] in kinds
            ground = pixels_of(folder / scene) / 127.5 - 1 if code >= 0 else np.zeros((SIDE, SIDE, 3))
            assert torch.allclose(images[row], over(pixels_of(folder / cut_out), ground), rtol=0, atol=1e-6), (
                name,
                row,
            )
        assert (split.cues < 0).all() if name == "NC" else (split.cues >= 0).any()


def test_scenes_of_a_class_are_used_in_turn_and_random_ones_come_from_their_own_part(folder):
    dataset = loaded(folder)
    for part, counts in ((dataset.train, {0: 8, 1: 12}), (dataset.test, {0: 2, 1: 3})):
        for label, scenes in counts.items():
            own = part.cues[part.labels == label]
            assert len(own.unique()) == min(len(own), scenes)
    first_test = 20
    for draw, low, high in ((dataset.random_train_cue, 0, first_test), (dataset.random_cue, first_test, 25)):
        assert draw(2000, torch.Generator().manual_seed(0)).unique().tolist() == [*range(low, high)]


def test_scenes_make_groups_of_the_classes_that_they_go_with(folder):
    dataset, found = loaded(folder), found_in(folder)
    labels = [label for part in ("train", "test") for label in found.scenes[part].labels]
    codes = torch.arange(len(labels))
    assert dataset.cue_groups(codes).tolist() == labels
    assert dataset.cue_groups(dataset.test.cues).tolist() == dataset.test.labels.tolist()


@pytest.mark.slow
def test_balanced_classes_have_as_many_cut_outs_and_scenes_each_in_their_order(folder):
    everything, balanced = loaded(folder), loaded(folder, balanced=True)
    for part, count in (("train", 8), ("test", 2)):
        before, after = getattr(everything, part), getattr(balanced, part)
        assert after.labels.bincount().tolist() == [count, count]
        rows = rows_in(before.images, after.images)
        assert rows == sorted({*rows}) and before.labels[rows].tolist() == after.labels.tolist()
    labels = balanced.cue_groups(torch.arange(len(balanced._scenes)))
    for scenes, count in ((labels[: balanced._first_test], 8), (labels[balanced._first_test :], 2)):
        assert scenes.bincount().tolist() == [count, count]
    rows = rows_in(everything._scenes, balanced._scenes)
    assert rows == sorted({*rows})
    assert everything.cue_groups(torch.tensor(rows)).tolist() == labels.tolist()
    assert torch.equal(loaded(folder, balanced=True).train.images, balanced.train.images)
    other = loaded(folder, balanced=True, data_seed=1)
    assert not torch.equal(other.train.images, balanced.train.images)
    assert not torch.equal(other._scenes, balanced._scenes)


def rows_in(images, chosen):
    return [int((images == image).flatten(1).all(1).nonzero()) for image in chosen]


@pytest.mark.slow
def test_classes_are_balanced_where_files_do_not_say_what_is_shown(folder):
    balanced = {
        name: offer_of(name).configure({}).balanced
        for name in ("foregrounds", "catdog-scenes", "waterbirds", "waterbirds-95")
    }
    assert balanced == {"foregrounds": True, "catdog-scenes": True, "waterbirds": True, "waterbirds-95": False}
    with pytest.raises(UserError, match="balanced = True"):
        offer_of("waterbirds-95").configure({"balanced": True})


@pytest.mark.slow
def test_the_kit_finds_nothing(folder):
    registry = Registry.discover()
    subject = subject_of(registry.get("dataset", "foregrounds"), registry, {"foregrounds": str(folder)})
    names = in_this_process("dataset")
    found = [prop.check(subject) for prop in properties_of("dataset") if prop.name in names]
    assert [(check.name, check.message) for check in found if not check.passed] == []
    assert sum(check.outcome == "ok" for check in found) > 10


# --- placement


def moved_by_hand(image, scale, right, down):
    """Return a cut-out scaled about the middle and moved: bilinear, weighted with opacity; nothing lies outside."""
    moved = np.zeros((SIDE, SIDE, 4))
    weighted = image.astype(np.float64)
    weighted[:, :, :3] *= weighted[:, :, 3:] / 255
    for row in range(SIDE):
        for column in range(SIDE):
            y = (row + 0.5 - SIDE / 2 - down * SIDE) / scale + SIDE / 2 - 0.5
            x = (column + 0.5 - SIDE / 2 - right * SIDE) / scale + SIDE / 2 - 0.5
            for i in (int(np.floor(y)), int(np.floor(y)) + 1):
                for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= i < SIDE and 0 <= j < SIDE:
                        moved[row, column] += max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)) * weighted[i, j]
    opacity = moved[:, :, 3:] / 255
    return np.concatenate([moved[:, :, :3] / np.maximum(opacity, 1 / 255), moved[:, :, 3:]], axis=2)


@pytest.mark.slow
def test_each_cut_out_has_a_place_and_size_of_its_own_in_these_ranges(folder):
    dataset, found = loaded(folder, scale=[0.5, 1.5], shift=0.25, data_seed=3), found_in(folder)
    generator = torch.Generator().manual_seed(3)
    scale = 0.5 + torch.rand(20, generator=generator)
    shift = 0.25 * (2 * torch.rand(20, 2, generator=generator) - 1)
    for row in (0, 7, 13, 19):
        image = pixels_of(folder / found.cutouts["train"].names[row])
        expected = moved_by_hand(image, scale[row].item(), *shift[row].tolist())
        stored = dataset.train.images[row].permute(1, 2, 0).numpy().astype(np.float64)
        assert np.abs(stored[:, :, 3] - expected[:, :, 3]).max() <= 1
        weight = expected[:, :, 3:] / 255
        assert np.abs((stored[:, :, :3] - expected[:, :, :3]) * weight).max() <= 2


def test_a_cut_out_lies_in_the_same_place_whatever_is_behind_it(folder):
    dataset = loaded(folder, scale=[0.6, 1.2], shift=0.2, soften=2)
    splits = derive_experiment(dataset, SETTINGS, 0.5, seed=1).splits
    plain, own, other = (splits[name].batch(slice(None))[0] for name in ("NC", "C", "RC"))
    opaque = (dataset.test.images[splits["NC"].index][:, 3:] == 255).expand_as(plain)
    assert opaque.any((1, 2, 3)).sum() > 1
    assert torch.equal(plain[opaque], own[opaque]) and torch.equal(plain[opaque], other[opaque])


@pytest.mark.parametrize("parameters", [{}, {"scale": [0.7, 1.3], "shift": 0.2}, {"soften": 3}, {"size": 24}])
def test_hidden_colours_never_show_at_the_edge(folder, parameters):
    for file in (folder / "cutouts").rglob("*.png"):
        pixels = pixels_of(file).copy()
        pixels[:, :, :3] = np.where(pixels[:, :, 3:] > 0, 255, 0)  # white, and black where nobody sees it
        Image.fromarray(pixels).save(file)
    dataset = loaded(folder, **parameters)
    side = dataset.train.images.shape[-1]
    dataset._scenes = torch.full((25, 3, side, side), 255, dtype=torch.uint8)
    seen = pictures(dataset, dataset.train.images, dataset.train.cues)
    assert seen.min() > 0.99


def test_a_softened_edge_fades_within_the_cut_out_and_not_at_the_border(folder):
    pixels = np.full((SIDE, SIDE, 4), 255, np.uint8)
    pixels[8:, :, 3] = 0  # opaque to the border above and at both sides
    for file in (folder / "cutouts").rglob("*.png"):
        Image.fromarray(pixels).save(file)
    opacity = loaded(folder, soften=3).train.images[0, 3].int()
    assert (opacity == opacity[:, :1]).all()
    fading = opacity[:, 0].tolist()
    assert fading[8:] == [0] * 8 and fading[:3] == [255] * 3
    assert fading == sorted(fading, reverse=True)
    assert 0 < fading[7] < 85 < fading[6] < 190 < fading[5] < 250


@pytest.mark.parametrize("parameters", [{}, {"scale": [0.6, 1.2], "shift": 0.2, "soften": 2}])
def test_images_that_stay_in_their_file_look_the_same(folder, parameters):
    held, mapped = loaded(folder, **parameters), loaded(folder, memory=1, **parameters)
    assert isinstance(mapped.train.images, StoredImages) and isinstance(mapped._scenes, StoredImages)
    for name in ("C", "NC"):
        first, second = (derive_experiment(each, SETTINGS, 0.5, seed=1).splits[name] for each in (held, mapped))
        assert torch.equal(first.batch(slice(None))[0], second.batch(slice(None))[0])
        in_batches = [torch.cat([images for images, _ in each.in_order(2)]) for each in (first, second)]
        assert torch.equal(*in_batches)


@pytest.mark.slow
def test_placing_cut_outs_of_a_file_ignores_the_arithmetic_of_the_run(folder):
    held, stored = (loaded(folder, memory, scale=[0.6, 1.2], shift=0.2, soften=2) for memory in (2**30, 1))
    index = torch.arange(len(held.train.images)).flip(0)
    expected, there_and_back = held.train.images[index], pickle.loads(pickle.dumps(stored.train.images))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for images in (stored.train.images, there_and_back):
            assert isinstance(images, StoredImages) and images.shape == expected.shape and images.path.is_file()
            assert torch.equal(images.rows(index), expected)
            batches = list(images.read_ahead(index.split(7), torch.device("cpu")))
            assert torch.equal(torch.cat(batches), expected)


# --- the neutral ground


@pytest.mark.parametrize("ground", ["grey", "blur", "noise"])
def test_the_ground_without_a_cue_is_one_for_all_and_tells_no_class(folder, ground):
    dataset = loaded(folder, ground=ground)
    clear = torch.full((3, 4, SIDE, SIDE), -1.0)
    seen = pictures(dataset, clear, torch.full((3,), -1))
    assert torch.equal(seen, seen[:1].expand_as(seen))
    levels = {0: 199.5, 1: (8 * 39.5 + 4 * 119.5) / 12}  # of the training scenes of each class, by how they were made
    between = sum(levels.values()) / 2 / 127.5 - 1
    picture = seen[0]
    if ground == "grey":
        assert not picture.any()
    elif ground == "blur":
        assert abs(picture.mean() - between) < 0.03 and picture.std() < 0.05
    else:
        grass = (picture.mean(0) > 160 / 127.5 - 1).float().mean()
        assert picture.std() > 0.3 and 0.25 < grass < 0.6  # 8 of 20 training scenes are of grass


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (2, "scale = 2: two numbers are wanted, the least and the largest factor"),
        ([1, 2, 3], r"scale = \[1, 2, 3\]: two numbers are wanted"),
        ([2, 1], r"scale = \[2, 1\]: the least factor comes first"),
    ],
)
def test_a_scale_is_two_factors_in_order(scale, says):
    with pytest.raises(UserError, match=says):
        offer_of().configure({"scale": scale})


# --- what is not seen


def fills(value, box=(slice(None), slice(None))):
    """Return a picture (H, W, 4) of grey, whose opacity is `value` in a box and 0 elsewhere."""
    pixels = np.full((SIDE, SIDE, 4), 128, np.uint8)
    pixels[:, :, 3] = 0
    pixels[(*box, 3)] = value
    return pixels


@pytest.mark.parametrize(
    ("pixels", "parameters", "says"),
    [
        (fills(0), {}, "shows nothing: none of its pixels is opaque"),
        (fills(255), {}, "hides all of a scene: it is an opaque rectangle"),
        (fills(255)[:7], {}, "hides all of a scene: it is an opaque rectangle"),
        (fills(255)[:, :7], {"scale": [0.8, 0.8]}, "hides all of a scene: it is an opaque rectangle"),
        (fills(255, (slice(6, 9), slice(6, 9))), {"soften": 4}, "shows nothing in its place: bring scale nearer"),
        (
            fills(255, (slice(0, 3), slice(0, 3))),
            {"scale": [1.5, 1.5]},
            "shows nothing in its place: bring scale nearer",
        ),
        (fills(255, (slice(3, 13), slice(3, 13))), {"scale": [2, 2]}, "hides all of a scene in its place: bring scale"),
    ],
)
@pytest.mark.parametrize("memory", [1, 2**30])
def test_a_cut_out_that_is_not_seen_or_hides_every_scene_is_named(folder, pixels, parameters, says, memory):
    Image.fromarray(pixels).save(folder / "cutouts" / "ant" / "03.png")
    with pytest.raises(UserError, match=f"cutouts/ant/03.png {says}"):
        loaded(folder, memory, **parameters)


WHITE = Image.new("LA", (SIDE, SIDE), (255, 0))  # white on transparent
WHITE.paste((255, 255), (4, 4, 9, 9))


def palette(colour):
    image = Image.fromarray(np.eye(SIDE, dtype=np.uint8), "P")
    image.putpalette([0, 0, 0, *colour])
    return image


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (Image.fromarray(np.eye(SIDE, dtype=np.uint8)), "shows nothing: the largest value of its mask {} is 1, and"),
        (palette((128, 0, 0)), "shows nothing: the largest value of its mask {} is 38, and white, 255, means opaque"),
        (WHITE, "hides all of a scene: its mask {} is white"),
    ],
)
def test_a_mask_that_means_something_else_is_named_with_its_values(folder, mask, says):
    for file in (folder / "cutouts").rglob("*.png"):
        pixels = pixels_of(file)
        Image.fromarray(pixels[:, :, :3]).save(file)
        other = folder / "masks" / file.relative_to(folder / "cutouts")
        other.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[:, :, 3]).save(other)
    mask.save(other)
    describe(folder, masks={name: f"masks/{name}" for name in PAIRS})
    name = "/".join(other.parts[-2:])
    with pytest.raises(UserError, match=f"cutouts/{name} {says.format(f'.*masks/{name}')}"):
        loaded(folder)


# --- a run

SUITE = """
datasets: [foregrounds]
backbones: [tiny-net]
methods: [tiny-ft]
cue_rates: [0.8]
seeds: [0]
threads: 1
data: {clean_images: 4, validation_images: 4}
pretrain: {epochs: 1, batch_size: 4, lr: 0.05, augment: crop-flip}
connect: {points: 2}
parameters: {foregrounds: {size: 16, scale: [0.8, 1.0]}}
"""


@pytest.mark.slow
def test_a_suite_runs_and_its_records_name_the_images(bench, folder):
    (bench.folder / "suite.yaml").write_text(SUITE)
    result = bench("run", "--suite", "suite.yaml", "--workers", 0, "--data", f"foregrounds={folder}", "--json")
    assert (result.code, json.loads(result.out)["computed"]) == (0, 1), result.err
    file = folder / "scenes" / "dusk" / "04.png"
    Image.fromarray(255 - pixels_of(file)).save(file)
    again = bench("run", "--suite", "suite.yaml", "--workers", 0, "--data", f"foregrounds={folder}", "--json")
    assert json.loads(again.out)["computed"] == 1, again.err
    cells = [record for record in bench.records().values() if "curve" in record]
    assert len({cell["pretraining"]["images"]["foregrounds"] for cell in cells}) == len(cells) == 2


def test_a_wrong_folder_ends_a_run_before_it_starts(bench, folder):
    drop(folder, "scenes/dusk/*")
    result = bench("run", "--datasets", "foregrounds", "--data", f"foregrounds={folder}")
    assert result.code == 4 and "dusk holds no image" in result.err

"""The conformance kit on datasets: a sound one passes, and each planted fault is found."""

import pytest
from helpers.kit import checks, source_of

TELLS = "has a cue that tells the label"
UNIFORM = "draws random cues uniformly"
REGION = "keeps the cue to its region"
PURE = "renders every image by itself, the same every time"
LOADS = "loads images and labels"
BARE = "leaves images without a cue as they are"

RENDER = "def render(self, images, cue):\n    import torch\n    "
RANDOM = "def random_cue(self, n, generator):\n    import torch\n    "
PLAIN = "seen = Planted.plain(self, images, cue)\n    "
LARGER = RENDER + "return torch.cat([images.flip(3), images], dim=2)\n\n"
AFTER_LOADING = "def load(self, sources):\n    import torch\n    Planted.plain_load(self, sources)\n    "

FAULTS = {
    "one cue for two labels": ("def cues_of(self, labels):\n    return labels // 2", TELLS, "share a cue"),
    "a cue of chance": (
        "def cues_of(self, labels):\n    import torch\n    return torch.randint(4, labels.shape)",
        "loads the same every time",
        "the train cues differ",
    ),
    "too few cues": ("def cues_of(self, labels):\n    return labels[:5].clone()", LOADS, "train has 5 cues for 48"),
    "cues of single images at random": (
        AFTER_LOADING + "from dataclasses import replace\n    "
        "self.test = replace(self.test, cues=torch.randint(4, (48,), generator=torch.Generator().manual_seed(0)))",
        TELLS,
        "share a cue among the test images",
    ),
    "continuous cues at random": (
        AFTER_LOADING + "from dataclasses import replace\n    "
        "self.test = replace(self.test, cues=torch.rand(48, generator=torch.Generator().manual_seed(0)))",
        TELLS,
        "share a cue among the test images",
    ),
    "cues that look alike": (
        RENDER + "return Planted.plain(self, images, cue.clamp(max=2))",
        TELLS,
        "labels 2 and 3 look the same",
    ),
    "a label's cue is rare": (
        RANDOM + "return torch.randint(8, (n,), generator=generator).clamp(max=3)",
        UNIFORM,
        "random cues are not uniform: the code is 3",
    ),
    "a label's cue never comes": (
        RANDOM + "return torch.randint(3, (n,), generator=generator)",
        UNIFORM,
        "the code is 3 0 times in 4000",
    ),
    "random cues that are none": (
        RANDOM + "return torch.randint(-1, 4, (n,), generator=generator)",
        UNIFORM,
        "random cues are negative, such as -1",
    ),
    "random cues that no label has": (
        RANDOM + "return torch.randint(40, (n,), generator=generator)",
        UNIFORM,
        "random_cue draws 4, which is the cue of no label",
    ),
    "random cues without the generator": (RANDOM + "return torch.randint(4, (n,))", UNIFORM, "one state of the"),
    "random cues that are always the same": (RANDOM + "return torch.arange(n) % 4", UNIFORM, "does not depend on"),
    "random cues of another type": (
        RANDOM + "return torch.randint(4, (n,), generator=generator).float()",
        UNIFORM,
        "returns torch.float32 (4000,), and cues are torch.int64",
    ),
    "the cue leaks over the image": (
        RENDER + PLAIN + "return 0.9 * seen",
        REGION,
        "changes 100.0% of the pixels",
    ),
    "the cue leaks over the image but for a pixel": (
        RENDER + PLAIN + "leak = 0.9 * seen\n    leak[:, :, -1, -1] = seen[:, :, -1, -1]\n    return leak",
        REGION,
        "changes 98.4% of the pixels",
    ),
    "the cue goes where the image is bright": (
        RENDER + "bright = images[:, :, :4].amax((1, 2), keepdim=True).amax(3, keepdim=True) == images\n    "
        "seen = Planted.plain(self, images, cue)\n    "
        "return torch.where(bright, 0.5 * seen, seen)",
        REGION,
        "changes other pixels of one image than of another",
    ),
    "the cue leaks over dark images alone": (
        RENDER + PLAIN + "dark = images.amax((1, 2, 3)) < 0\n    "
        "return torch.where(dark[:, None, None, None], 0.9 * seen, seen)",
        REGION,
        "changes other pixels of one image than of another",
    ),
    "cues that cover the image together": (
        RENDER + "rows = torch.arange(8)[:, None] // 2 == cue[:, None, None, None]\n    "
        "return torch.where(rows, 0.7, images)",
        REGION,
        "the cues together change all pixels",
    ),
    "a blended cue that hides the image": (
        "blended = True\n" + RENDER + "return torch.zeros_like(images) + cue[:, None, None, None] / 4",
        REGION,
        "hides 100.0% of the pixels",
    ),
    "no cue is drawn": (RENDER + "return images.clone()", REGION, "no cue changes any of the pixels"),
    "a cue where there is none": (
        "def without_cue(self, images):\n    return Planted.plain(self, images, images[:, 0, 0, 0].long() * 0)",
        BARE,
        "without_cue changes",
    ),
    "the image is gone": (
        LARGER + "def without_cue(self, images):\n    return self.render(images.flip(2), None)",
        BARE,
        "are not part of (1, 16, 8)",
    ),
    "what surrounds the image differs": (
        LARGER + "def without_cue(self, images):\n    return self.render(images, None)",
        BARE,
        "what surrounds the image differs between images",
    ),
    "a cue that changes the shape": (LARGER, BARE, "have shape (1, 16, 8) with a cue and (1, 8, 8) without"),
    "rendering in place": (
        RENDER + "images[:, :, 0] = 1.0\n    return images",
        "renders without changing what it is given",
        "render changes the images that it is given",
    ),
    "rendering at random": (RENDER + PLAIN + "return seen + 0.01 * torch.rand(1)", PURE, "the second time"),
    "rendering by the batch": (RENDER + PLAIN + "return seen - images.mean()", PURE, "other images of the batch"),
    "out of range": (RENDER + PLAIN + "return torch.where(seen == 1, 3.0, seen)", "stays in the images' range", "to 3"),
    "loaded at random": (
        AFTER_LOADING + "self.train.images[0] = torch.randint(100, (1, 8, 8), dtype=torch.uint8)",
        "loads the same every time",
        "the train images differ",
    ),
    "further test images loaded at random": (
        AFTER_LOADING + "from dataclasses import replace\n    "
        "self.other_tests = {'other_one': replace(self.test, images=torch.rand(48, 1, 8, 8))}",
        "loads the same every time",
        "the other_one images differ",
    ),
    "further test images of other labels": (
        AFTER_LOADING + "from dataclasses import replace\n    "
        "self.other_tests = {'other_one': replace(self.test, labels=self.test.labels.flip(0))}",
        "makes every set of an experiment",
        "must have its images in order",
    ),
    "a label out of range": (AFTER_LOADING + "self.test.labels[0] = 4", LOADS, "labels 0 to 4"),
    "a class without images": (
        AFTER_LOADING + "self.test.labels[self.test.labels == 2] = 1",
        LOADS,
        "test has no image of class 2",
    ),
    "integer images of another type": (
        AFTER_LOADING + "object.__setattr__(self.train, 'images', self.train.images.long())",
        LOADS,
        "train images are torch.int64",
    ),
    "more held out than there is": ("clean_images = 100", "makes every set of an experiment", "are too few"),
}


def planted(body):
    """Return a dataset whose class is changed by `body`, which may call what it replaces."""
    return source_of("dataset", "plain, plain_load = render, load\n" + body)


@pytest.mark.slow
def test_a_sound_dataset_passes_every_check(tmp_path):
    found = checks(tmp_path, "dataset", source_of("dataset"))
    assert len(found) > 12
    assert {name: check.message for name, check in found.items() if not check.passed} == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_told_how_to_mend(tmp_path, fault):
    body, name, says = FAULTS[fault]
    check = checks(tmp_path, "dataset", planted(body), name)[name]
    assert check.outcome == "failed"
    assert says in check.message
    assert len(check.remedy) > 10


def cut_outs(ground="torch.zeros(3, 8, 8)", opacity="(1 + images[:, 3:]) / 2"):
    """Return a dataset of cut-outs, images with opacity, whose cue is what is behind them."""
    over = f"opacity = {opacity}\n    return images[:, :3] * opacity + (1 - opacity) * ground"
    return planted(
        AFTER_LOADING + "for part in (self.train, self.test):\n        "
        "object.__setattr__(part, 'images', part.images.repeat(1, 4, 1, 1))\n\n"
        f"{RENDER}ground = (cue / 4)[:, None, None, None].expand(-1, 3, 8, 8)\n    {over}\n\n"
        f"def without_cue(self, images):\n    import torch\n    ground = {ground}\n    {over}"
    )


@pytest.mark.slow
def test_cut_outs_in_front_of_their_cue_pass_every_check(tmp_path):
    found = checks(tmp_path, "dataset", cut_outs())
    assert {name: check.message for name, check in found.items() if not check.passed} == {}
    assert found[REGION].message == "with a cue, the ground is seen behind cut-outs"


@pytest.mark.parametrize(
    ("fault", "name", "says"),
    [
        ({"opacity": "0.9 * (1 + images[:, 3:]) / 2"}, REGION, "with a cue, opaque pixels are not seen as they are"),
        ({"opacity": "0.9 * (1 + images[:, 3:]) / 2"}, BARE, "without a cue, opaque pixels are not seen as they are"),
        ({"opacity": "((2 + images[:, 3:]) / 2).clamp(max=1)"}, REGION, "the colours of transparent pixels are seen"),
        (
            {"ground": "torch.arange(len(images))[:, None, None, None] / 100"},
            BARE,
            "what is behind the image differs between images",
        ),
    ],
)
def test_cut_outs_that_let_the_ground_through_or_have_several_are_refused(tmp_path, fault, name, says):
    check = checks(tmp_path, "dataset", cut_outs(**fault), name)[name]
    assert check.outcome == "failed" and says in check.message


def continuous(drawn):
    """Return a dataset with cues of 0, 0.25, 0.5 and 0.75, and random ones that `drawn` makes of uniform ones `u`."""
    return planted(
        "def cues_of(self, labels):\n    return labels / 4\n\n"
        f"{RANDOM}u = torch.rand(n, generator=generator)\n    return {drawn}\n\n"
        f"{RENDER}return Planted.plain(self, images, (4 * cue).floor())"
    )


@pytest.mark.parametrize(
    ("drawn", "outcome", "says"),
    [
        ("u", "ok", "continuous, uniform"),
        ("0.75 * u", "ok", "continuous, uniform"),
        ("u.clamp(max=0.75)", "ok", "whether uniform is not checked, since"),
        ("u ** 4", "failed", "random cues are not uniform: the code lies in ["),
        ("100 * u", "failed", "of random cues lies in"),
        ("0.5 * u", "failed", "of random cues lies in ["),
        ("2 * u - 1", "failed", "are negative"),
    ],
)
def test_continuous_random_cues_are_uniform_and_reach_as_far_as_the_labels_own(tmp_path, drawn, outcome, says):
    found = checks(tmp_path, "dataset", continuous(drawn), UNIFORM, TELLS)
    assert found[TELLS].outcome == "ok"
    assert found[UNIFORM].outcome == outcome
    assert says in found[UNIFORM].message


def test_a_source_that_nobody_knows_is_asked_for(tmp_path):
    source = source_of("dataset").replace('summary="a fault"', 'summary="a fault", sources=("acme", "digits")')
    check = checks(tmp_path, "dataset", source, LOADS)[LOADS]
    assert (check.outcome, check.message) == ("not checked", "needs --data acme=DIR")

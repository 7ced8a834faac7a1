"""What an audit makes of the images at hand: the sizes of its sets, its steps of training, the share of a class."""

import pytest
from helpers.audited import write_images
from PIL import Image

from mmc_bench.auditing.chance import ScoredImages
from mmc_bench.auditing.folders import pixels_for
from mmc_bench.auditing.pictures import Shown
from mmc_bench.auditing.plan import AuditSession
from mmc_bench.data.class_folders import read_class_folders
from mmc_bench.running.session import Session


@pytest.mark.slow
def test_images_that_are_few_or_large_are_fitted_and_said_so(tmp_path, capsys):
    folder = write_images(tmp_path, side=70)
    session = AuditSession.auditing(Session.of(None, {"datasets": "images-box"}, data={"images": folder}))
    sizes = session.plan.pretrainings[0].data
    assert (sizes.pretrain_images, sizes.clean_images, sizes.validation_images) == (None, None, None)
    assert session.plan.pretrainings[0].dataset.parameters["pixels"] == 64
    said = capsys.readouterr().err
    assert "120 training images are few" in said and "--set images-box.pixels=N" in said
    own = {"images-box.pixels": 32}
    session = AuditSession.auditing(Session.of(None, {"datasets": "images-box"}, own, data={"images": folder}))
    assert session.plan.pretrainings[0].dataset.parameters["pixels"] == 32


def test_few_steps_of_training_are_said_beforehand(tmp_path, capsys):
    folder = write_images(tmp_path)

    def said(epochs):
        given = Session.of(None, {"datasets": "images-box"}, {"pretrain.epochs": epochs}, data={"images": folder})
        assert AuditSession.auditing(given).plan
        return capsys.readouterr().err

    assert "6 steps of training are few" in said(6) and "--set pretrain.epochs=100 trains longer" in said(6)
    assert "steps of training" not in said(100)


def test_the_share_of_the_largest_class_is_that_of_the_test_images(tmp_path):
    folder = write_images(tmp_path)
    for path in sorted((folder / "test" / "bee").iterdir())[4:]:
        path.unlink()
    given = Session.of(None, {"datasets": "images-box"}, {"data.test_images": 28}, data={"images": folder})
    session = AuditSession.auditing(given)
    shown = Shown.of(session, {model.key for model in session.plan.pretrainings})
    assert shown.tested == ScoredImages(3, 28, 12 / 28)


@pytest.mark.parametrize(("test_side", "pixels"), [(16, None), (24, 64), (80, 64)])
def test_images_are_resized_where_those_for_testing_are_larger_or_of_another_size(tmp_path, test_side, pixels):
    write_images(tmp_path, train=2)
    for file in (tmp_path / "test").rglob("*.png"):
        Image.new("RGB", (test_side, test_side)).save(file)
    assert pixels_for(read_class_folders(tmp_path)) == pixels

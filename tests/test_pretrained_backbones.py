"""timm's pretrained weights: found where timm keeps them, loaded by timm, and named by their digest."""

import copy

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from mmc_bench import UserError
from mmc_bench.plugin.registry import Registry
from mmc_bench.training.interface import check_backbone

MODEL = "test_resnet.r160_in1k"
NAME = f"timm/{MODEL}"


@pytest.fixture(scope="module")
def offer():
    return Registry.discover().get("backbone", NAME)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(1)
    return timm.create_model(MODEL, pretrained=False).state_dict()


@pytest.fixture
def file(trained, tmp_path):
    save_file(trained, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Return the folders that are looked through, empty at first; nothing is downloaded."""

    def download(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return tmp_path / "hf", tmp_path / "torch" / "checkpoints"


def make(offer, **parameters):
    return offer.make(offer.configure(parameters), num_classes=10, input_shape=(3, 32, 32)).eval()


def test_a_tagged_name_has_the_weights_of_timm_s_file_and_a_new_last_layer(offer, file, trained):
    model = make(offer, weights=str(file))
    weights = model.state_dict()
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[name], trained[name]) for name in trained if not name.startswith("fc."))
    assert weights["fc.weight"].shape == (10, trained["fc.weight"].shape[1])
    check_backbone(model, 10, (3, 32, 32))


@torch.no_grad()
def test_images_are_resized_and_normalised_as_the_weights_were_trained(offer, file, trained, monkeypatch):
    known = timm.models.get_pretrained_cfg(MODEL)
    monkeypatch.setattr(
        timm.models._registry,
        "_model_pretrained_cfgs",
        {
            **timm.models._registry._model_pretrained_cfgs,
            MODEL: type(known)(**{**vars(known), "mean": (0.2, 0.4, 0.6), "std": (0.5, 0.25, 0.1)}),
        },
    )
    model = make(offer, weights=str(file))
    plain = timm.create_model(MODEL, pretrained=False).eval()
    plain.load_state_dict(trained)
    x = torch.rand(2, 3, 160, 160)
    mean, std = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.5, 0.25, 0.1])
    expected = plain.forward_features((x - mean[:, None, None]) / std[:, None, None])
    assert torch.allclose(model.forward_features(2 * x - 1), expected, atol=1e-4)
    small = torch.rand(2, 3, 32, 32)
    larger = torch.nn.functional.interpolate(small, size=(160, 160), mode="bilinear", align_corners=False)
    assert torch.allclose(model(small), model(larger), atol=1e-4)
    assert torch.equal(copy.deepcopy(model)(small), model(small))


def test_the_stem_is_the_model_s_own_unless_asked_otherwise(offer, file):
    own, kept = make(offer, weights=str(file)), make(offer, weights=str(file), cifar_stem=True)
    assert not isinstance(own.maxpool, torch.nn.Identity) and isinstance(kept.maxpool, torch.nn.Identity)


def test_random_weights_need_no_file(offer, caches):
    model = make(offer, init="random")
    assert isinstance(model.maxpool, torch.nn.Identity) and not hasattr(model, "input_scale")
    assert offer.reference({"init": "random"}).weights is None


def test_the_caches_are_looked_through(offer, caches, trained):
    snapshot = caches[0] / "models--timm--test_resnet.r160_in1k"
    (snapshot / "refs").mkdir(parents=True)
    (snapshot / "refs" / "main").write_text("abc")
    (snapshot / "snapshots" / "abc").mkdir(parents=True)
    save_file(trained, snapshot / "snapshots" / "abc" / "model.safetensors")
    assert torch.equal(make(offer).state_dict()["conv1.0.weight"], trained["conv1.0.weight"])


@pytest.mark.slow
def test_torch_s_hub_folder_is_looked_through(offer, caches):
    resnet = Registry.discover().get("backbone", "timm/resnet50.a1_in1k")
    caches[1].mkdir(parents=True)
    (caches[1] / "resnet50_a1_0-14fe96d1.pth").write_bytes(b"not weights")
    assert resnet.reference({}).weights is not None
    with pytest.raises(UserError, match=r"timm/resnet50\.a1_in1k cannot be built from .*resnet50_a1_0-14fe96d1\.pth"):
        make(resnet)


def test_where_there_is_no_network_one_sentence_says_where_it_was_looked(offer, caches):
    with pytest.raises(UserError) as caught:
        offer.reference({})
    assert str(caches[0]) in str(caught.value) and str(caches[1]) in str(caught.value)
    assert "cannot be downloaded (no network here): give their file with --set" in str(caught.value)


def test_the_weights_digest_is_part_of_the_identity(offer, file, trained):
    first = offer.reference({"weights": str(file)})
    assert len(first.weights) == 64
    save_file({**trained, "fc.bias": trained["fc.bias"] + 1}, file)
    assert offer.reference({"weights": str(file)}).weights != first.weights
    plain = Registry.discover().get("backbone", "timm/test_resnet").reference({})
    assert plain.weights is None and "weights" not in plain.identity()


def test_where_the_file_lies_is_no_part_of_the_identity(offer, file, tmp_path):
    other = tmp_path / "elsewhere.safetensors"
    other.write_bytes(file.read_bytes())
    first, second = (offer.reference({"weights": str(path)}) for path in (file, other))
    assert first.parameters != second.parameters and first.canonical == second.canonical
    assert first.content() == second.content()  # what tables group by


def test_misspelt_tags_come_with_the_nearest(offer):
    registry = Registry.discover()
    with pytest.raises(
        UserError, match=r"timm has no model 'test_resnet\.r160': did you mean .*test_resnet\.r160_in1k"
    ):
        registry.get("backbone", "timm/test_resnet.r160").reference({})


@torch.no_grad()
def test_grey_images_are_normalised_by_the_mean_of_the_channels(offer, file):
    model = offer.make(offer.configure({"weights": str(file)}), num_classes=4, input_shape=(1, 32, 32)).eval()
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"weights": "nowhere.pth"}, "there is no file nowhere.pth"),
        ({"weights": "nowhere.pth", "init": "random"}, "contradict each other"),
    ],
)
def test_weights_that_cannot_be_had_are_refused(offer, parameters, sentence):
    with pytest.raises(UserError, match=sentence):
        offer.reference(parameters)


def test_weights_of_another_network_are_refused(offer, tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"cannot be built from .*other\.safetensors"):
        make(offer, weights=str(tmp_path / "other.safetensors"))

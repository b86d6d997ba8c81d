"""A model of the library transformers, saved in a folder, sees what it sees in its own pipeline."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from pipeline_lib.networks.checkpoints import load_weights, save_weights
from pipeline_lib.networks.transformers_model import TransformersClassifier, TransformersSegmenter
from pipeline_lib.runtime.errors import WeightsError

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 127.5 - 1
NAMES = {0: "wall", 1: "u_lip", 2: "l_lip", 3: "hair", 4: "hat"}


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segformer")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 8, 8], decoder_hidden_size=8, num_attention_heads=[1] * 4, depths=[1] * 4, id2label=NAMES
    )
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    torch.nn.init.normal_(network.decode_head.classifier.weight, std=3)  # so that every class is found somewhere
    network.save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def write_classifier(folder, **options):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32, patch_size=8
    )
    config.id2label = {0: "man", 1: "woman", 2: "smiling"}
    for name, value in options.items():
        setattr(config, name, value)
    network = transformers.ViTForImageClassification(config).eval()
    torch.nn.init.normal_(network.classifier.weight, std=1)
    network.save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4] * 3)
    processor.save_pretrained(folder)
    return folder


def own_outputs(kind, processor, folder):
    network = getattr(transformers, kind).from_pretrained(folder)
    inputs = getattr(transformers, processor).from_pretrained(folder)(
        [Image.fromarray(image) for image in PIXELS], return_tensors="pt"
    )
    with torch.no_grad():
        return network(**inputs).logits


@pytest.mark.slow
def test_parts_are_those_of_the_library_put_together(segmenter):
    ours = TransformersSegmenter.from_folder(segmenter, {"mouth": ["u_lip", "l_lip"], "hair": ["hair"]}).eval()
    scores = own_outputs("SegformerForSemanticSegmentation", "SegformerImageProcessor", segmenter)
    theirs = torch.nn.functional.interpolate(scores, size=(32, 32), mode="bilinear").argmax(dim=1)
    assert len(theirs.unique()) == len(NAMES)
    wanted = torch.tensor([0, 1, 1, 2, 0])[theirs]
    with torch.no_grad():
        assert (ours(IMAGES) == wanted).float().mean() > 0.99  # colours are rounded in another order
    assert ours.parts == ["background", "mouth", "hair"]


@pytest.mark.parametrize("kind", ["multi_label_classification", "single_label_classification"])
def test_probabilities_are_those_of_the_library(tmp_path, kind):
    folder = write_classifier(tmp_path / "vit", problem_type=kind)
    ours = TransformersClassifier.from_folder(folder, ["Smiling", "Male"], ["smiling", "man"], mirror=False)
    logits = own_outputs("ViTForImageClassification", "ViTImageProcessor", folder)
    theirs = logits.sigmoid() if kind.startswith("multi") else logits.softmax(dim=1)
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES), theirs[:, [2, 0]], rtol=1e-4, atol=1e-5)


PROCESSORS = {
    "squeezed": ("ViTImageProcessor", {"size": {"height": 24, "width": 40}}),
    "cropped": ("MobileNetV2ImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
    "cropped bicubic": (
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 45}, "crop_size": {"height": 32, "width": 24}},
    ),
    "padded": ("CLIPImageProcessor", {"size": {"shortest_edge": 27}, "crop_size": {"height": 32, "width": 32}}),
    "cropped alone": ("CLIPImageProcessor", {"do_resize": False, "crop_size": {"height": 20, "width": 15}}),
    "from -1 to 1": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "rescale_factor": 1 / 127.5}),
    "not rescaled": (
        "ViTImageProcessor",
        {"size": {"height": 32, "width": 32}, "do_rescale": False, "image_std": [60.0] * 3},
    ),
    "with an offset": (
        "EfficientNetImageProcessor",
        {"size": {"height": 32, "width": 32}, "resample": 2, "rescale_factor": 1 / 127.5, "rescale_offset": True},
    ),
    "normalised once": (
        "EfficientNetImageProcessor",
        {"size": {"height": 32, "width": 32}, "resample": 2, "include_top": False},
    ),
    "cropped by share": ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.8}),
    "uncropped by share": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}, "crop_pct": 0.8}),
    "cropped by share and size": (
        "PoolFormerImageProcessor",
        {"size": {"shortest_edge": 32}, "crop_pct": 0.9, "crop_size": {"height": 30, "width": 30}},
    ),
}


@pytest.mark.parametrize(("kind", "options"), PROCESSORS.values(), ids=PROCESSORS)
def test_images_are_prepared_as_by_the_library(tmp_path, kind, options):
    folder = write_classifier(tmp_path / "vit")
    processor = getattr(transformers, kind)(**options)
    processor.save_pretrained(folder)
    pixels = PIXELS // 2 + 64  # so that bicubic does not overshoot, which theirs cut off once an axis
    theirs = processor([Image.fromarray(image) for image in pixels], return_tensors="pt")["pixel_values"]
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    ours = TransformersClassifier.from_folder(folder, ["Male"], ["man"]).preprocess(images)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 2.1 / 255 / min(processor.image_std)  # theirs are rounded to whole colours


def test_a_cropped_classifier_judges_as_in_the_library(tmp_path):
    folder = write_classifier(tmp_path / "vit")
    transformers.CLIPImageProcessor(size={"shortest_edge": 48}, crop_size=32).save_pretrained(folder)
    ours = TransformersClassifier.from_folder(folder, ["Male"], ["man"], mirror=False)
    theirs = own_outputs("ViTForImageClassification", "CLIPImageProcessor", folder).softmax(dim=1)[:, :1]
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES), theirs, rtol=1e-2, atol=1e-3)
        save_weights(tmp_path / "ours.safetensors", ours, {})
        assert load_weights(tmp_path / "ours.safetensors")(IMAGES).equal(ours.eval()(IMAGES))


def test_a_segmenter_that_would_crop_is_refused_and_one_that_squeezes_is_not(tmp_path, segmenter):
    folder = shutil.copytree(segmenter, tmp_path / "segformer")
    for crop in (24, 32):
        transformers.MobileNetV2ImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": crop, "width": crop}
        ).save_pretrained(folder)
        if crop == 32:  # of the whole image
            TransformersSegmenter.from_folder(folder, {"hair": ["hair"]})
            continue
        with pytest.raises(WeightsError, match=r"segformer: preprocessor_config.json crops .* set it to false"):
            TransformersSegmenter.from_folder(folder, {"hair": ["hair"]})
    transformers.SegformerImageProcessor(size={"height": 32, "width": 64}).save_pretrained(folder)
    ours = TransformersSegmenter.from_folder(folder, {name: [name] for name in list(NAMES.values())[1:]}).eval()
    scores = own_outputs("SegformerForSemanticSegmentation", "SegformerImageProcessor", folder)
    theirs = torch.nn.functional.interpolate(scores, size=(32, 32), mode="bilinear").argmax(dim=1)
    with torch.no_grad():
        assert (ours(IMAGES) == theirs).float().mean() > 0.99


@pytest.mark.parametrize(("key", "value"), [("do_flip_channel_order", True), ("resample", 1)])
def test_what_is_not_done_to_images_here_is_refused(tmp_path, key, value):
    folder = write_classifier(tmp_path / "vit")
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(values | {key: value}))
    with pytest.raises(WeightsError, match=f"vit: .*`{key}`.* not done here"):
        TransformersClassifier.from_folder(folder, ["Male"], ["man"])


def test_both_travel_inside_a_weight_file(tmp_path, segmenter):
    classifier = write_classifier(tmp_path / "vit")
    for number, network in enumerate(
        [
            TransformersSegmenter.from_folder(segmenter, {"hair": ["hair", "hat"]}),
            TransformersClassifier.from_folder(classifier, ["Male"], ["man"]),
        ]
    ):
        save_weights(tmp_path / f"{number}.safetensors", network, {})
        again = load_weights(tmp_path / f"{number}.safetensors")
        with torch.no_grad():
            assert again(IMAGES).equal(network.eval()(IMAGES))


def test_a_folder_that_cannot_be_used_is_refused(tmp_path, segmenter):
    with pytest.raises(WeightsError, match=r"hair, hat$"):
        TransformersSegmenter.from_folder(segmenter, {"mouth": ["lips"]})
    with pytest.raises(WeightsError, match=r"nowhere: no AutoModelForSemanticSegmentation"):
        TransformersSegmenter.from_folder(tmp_path / "nowhere", {"mouth": ["lips"]})
    folder = write_classifier(tmp_path / "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"vit: no AutoModelForImageClassification with preprocessor_config.json"):
        TransformersClassifier.from_folder(folder, ["Male"], ["man"])


def test_pickled_weights_are_not_opened(tmp_path):
    folder = write_classifier(tmp_path / "vit")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"vit: no AutoModelForImageClassification"):
        TransformersClassifier.from_folder(folder, ["Male"], ["man"])


def test_a_folder_without_normalising_or_scaling_is_taken_at_its_word(tmp_path):
    folder = write_classifier(tmp_path / "vit")
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(values | {"do_normalize": False, "do_resize": False}))
    detector = TransformersClassifier.from_folder(folder, ["Male"], ["man"])
    torch.testing.assert_close(detector.preprocess(IMAGES), (IMAGES + 1) / 2)


def test_a_missing_package_is_named_with_its_mend(segmenter, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r"pip install latent-rebalance\[transformers\]"):
        TransformersSegmenter.from_folder(segmenter, {"hair": ["hair"]})

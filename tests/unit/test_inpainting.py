"""An inpainting pipeline draws the region by a prompt, and a folder or library that is missing is named."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch

from pipeline_lib.config import Edit
from pipeline_lib.editing.editor import EditRequest, open_editor
from pipeline_lib.editing.editors import inpainting
from pipeline_lib.editing.editors.inpainting import Inpainting, InpaintingEditor
from pipeline_lib.editing.finish import finish
from pipeline_lib.imaging.collages import Masks
from pipeline_lib.runtime.errors import WeightsError

SIDE, COUNT = 32, 3


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Write an inpainting pipeline with random weights, of the kind that diffusers publishes but tiny."""
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("inpainting")
    words = ["<|startoftext|>", "<|endoftext|>", "smiling</w>", "serious</w>", "s", "m", "s</w>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)
    text = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    pipeline = diffusers.StableDiffusionInpaintPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=SIDE,
            down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
        ),
        unet=diffusers.UNet2DConditionModel(
            sample_size=SIDE, in_channels=9, out_channels=4, block_out_channels=(8, 8), layers_per_block=1,
            norm_num_groups=4, cross_attention_dim=8, attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        text_encoder=transformers.CLIPTextModel(text), tokenizer=tokenizer,
        scheduler=diffusers.DDIMScheduler(steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


def settings_of(folder):
    return Inpainting(kind="inpainting", path=folder, present="smiling", absent="serious", side=None)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(inpainting, "STEPS", 2)
    monkeypatch.setattr(inpainting, "BATCH", 2)


@pytest.fixture
def editor(folder):
    return InpaintingEditor(settings_of(folder), torch.device("cpu"))


def draw(editor, wanted=(True, False, True), seeds=(1, 2, 3)):
    """Return contexts, the masks of what is drawn, and the composites."""
    context = torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pasted, unknown = torch.zeros(2, COUNT, 1, SIDE, SIDE)
    pasted[..., 16:24, 8:24] = 1
    unknown[..., 24:28, 8:24] = 1
    masks = Masks(pasted, unknown)
    request = EditRequest(torch.tensor(wanted), torch.tensor(seeds))
    return context, masks, editor(context, context.flip(0), masks, request)


@pytest.mark.slow
def test_a_finished_edit_differs_only_in_the_region(editor):
    context, masks, composite = draw(editor)
    assert composite.shape == context.shape
    assert composite.abs().max() <= 1
    finished = finish(context, context.flip(0), composite, masks, "region")
    outside = ~masks.region.bool().expand_as(context)
    assert finished[outside].equal(context[outside])
    assert not finished.equal(context)


def test_an_image_depends_on_its_own_seed_and_prompt_and_not_on_its_batch(editor, monkeypatch):
    _, _, composite = draw(editor)
    monkeypatch.setattr(inpainting, "BATCH", 1)
    torch.testing.assert_close(draw(editor)[2], composite, rtol=0, atol=1e-3)
    _, _, other = draw(editor, wanted=(True, True, True), seeds=(4, 2, 3))
    differs = (other - composite).abs().amax(dim=(1, 2, 3))
    assert (differs[:2] > 1e-3).all()  # of another seed, and of another prompt
    assert differs[2] < 1e-3


def test_each_prompt_reaches_the_pipeline(editor, monkeypatch):
    seen = []
    pipeline = editor._pipeline
    monkeypatch.setattr(editor, "_pipeline", lambda **values: seen.append(values) or pipeline(**values))
    draw(editor)
    assert [values["prompt"] for values in seen] == [["smiling", "serious"], ["smiling"]]


@pytest.mark.slow
def test_the_model_may_draw_at_another_size(folder):
    large = InpaintingEditor(settings_of(folder).model_copy(update={"side": 2 * SIDE}), torch.device("cpu"))
    context, _, composite = draw(large)
    assert composite.shape == context.shape


def test_the_config_opens_it_without_weights_of_a_gan(folder):
    settings = Edit(editor=settings_of(folder), finish="region")
    assert isinstance(open_editor(settings, [], [], [], torch.device("cpu")), InpaintingEditor)


def test_inpainting_keeps_no_pixels_of_a_donor(folder):
    with pytest.raises(ValueError, match="`finish: detail` keeps the donor"):
        Edit(editor=settings_of(folder))


def test_a_folder_without_a_pipeline_is_named(tmp_path):
    pytest.importorskip("diffusers")
    with pytest.raises(WeightsError, match=f"{tmp_path}: no inpainting pipeline of diffusers"):
        InpaintingEditor(settings_of(tmp_path), torch.device("cpu"))


def test_weights_of_another_shape_are_named(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "unet/config.json").read_text())
    (other / "unet/config.json").write_text(json.dumps(config | {"block_out_channels": [16, 16]}))
    with pytest.raises(WeightsError, match=f"{other}: no inpainting pipeline of diffusers"):
        InpaintingEditor(settings_of(other), torch.device("cpu"))


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(WeightsError, match=r"needs diffusers; run `pip install latent-rebalance\[inpainting\]`"):
        InpaintingEditor(settings_of(tmp_path), torch.device("cpu"))


def test_a_side_that_no_model_can_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="multiple of 8"):
        Inpainting(kind="inpainting", path=tmp_path, present="smiling", absent="serious", side=100)

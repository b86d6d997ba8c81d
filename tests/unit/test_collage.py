"""A collage shows the donor where it is pasted; what is unknown cannot reach its composite."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from pipeline_lib.imaging.collages import make_collage
from pipeline_lib.imaging.distances import peak_signal_to_noise
from pipeline_lib.networks.checkpoints import save_weights
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.inversion import LEAST_PSNR, Inverter, open_inverter, probe_precision
from pipeline_lib.runtime.errors import WeightsError
from pipeline_lib.runtime.files import write_json

CPU = torch.device("cpu")


def draw(count, channels=3, seed=0):
    return torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_collage_is_the_donor_where_pasted_and_the_context_elsewhere():
    context, donor, pasted = draw(4), draw(4, seed=1), (draw(4, 1, seed=2) > 0).float()
    collage = make_collage(context, donor, pasted)
    inside = pasted.bool().expand_as(collage)
    assert collage[inside].equal(donor[inside])
    assert collage[~inside].equal(context[~inside])


def test_a_composite_does_not_depend_on_unknown_pixels(networks):
    inverter = Inverter(networks.encoder, networks.generator, CPU)
    images, noise, known = draw(3), draw(3, seed=1), (draw(3, 1, seed=2) > 0).float()
    hidden = torch.where(known.bool(), images, noise)
    assert inverter(images, known).equal(inverter(hidden, known))
    assert not inverter(images).equal(inverter(hidden))


def test_composites_are_images_in_range(networks):
    composites = Inverter(networks.encoder, networks.generator, CPU)(draw(3))
    assert composites.shape == (3, 3, 16, 16)
    assert composites.abs().max() <= 1


@pytest.mark.long
def test_compiling_changes_composites_by_rounding_alone(networks, monkeypatch):
    monkeypatch.setattr("torch.compile", functools.partial(torch.compile, backend="aot_eager"))  # no C++ compiler
    eager, compiled = (
        Inverter(networks.encoder, networks.generator, CPU, compile=compile) for compile in (False, True)
    )
    images, known = draw(3), (draw(3, 1, seed=2) > 0).float()
    torch.testing.assert_close(compiled(images, known), eager(images, known), rtol=1e-4, atol=1e-5)


def test_a_signal_to_noise_ratio_is_that_of_the_noise():
    image = draw(2)
    assert peak_signal_to_noise(image + 0.02, image) == pytest.approx(40)  # a hundredth of the range
    assert peak_signal_to_noise(image, image) > 100


@pytest.fixture(scope="module")
def shipped():
    folder = Path(__file__).parents[2] / "resources/avatars-64"
    return folder / "encoder.safetensors", folder / "generator.safetensors"


@torch.no_grad()
def test_the_probe_takes_bfloat16_only_where_it_is_faster_and_faithful(shipped, monkeypatch):
    inverter = Inverter(*shipped, CPU)
    images = inverter.generator.decode(inverter.generator.sample_latents(range(8), 0))
    probe = functools.partial(probe_precision, inverter.encoder, inverter.generator, images, None, CPU)
    for bfloat16, expected in ((0.1, "bfloat16"), (0.199, "float32"), (0.3, "float32")):
        taken = {"float32": 0.2, "bfloat16": bfloat16}
        monkeypatch.setattr(
            "pipeline_lib.networks.inversion._seconds", lambda run, *_, taken=taken: taken[run.precision]
        )
        found = probe()
        assert found["precision"] == expected
        assert found["images_per_second"] == pytest.approx({name: 8 / seconds for name, seconds in taken.items()})
    exact = inverter(images)
    assert found["psnr"] == pytest.approx(peak_signal_to_noise(Inverter(*shipped, CPU, "bfloat16")(images), exact))
    assert found["psnr"] > LEAST_PSNR
    monkeypatch.setattr("pipeline_lib.networks.inversion.LEAST_PSNR", found["psnr"] + 1)
    taken["bfloat16"] = 0.1
    assert probe()["precision"] == "float32"


@pytest.mark.parametrize(
    ("probed_on", "wanted", "expected"),
    [("cpu", "", "bfloat16"), ("cuda", "", "float32"), ("cpu", "float32", "float32")],
)
def test_the_probe_holds_for_its_kind_of_device_unless_a_precision_is_asked_for(
    networks, tmp_path, monkeypatch, probed_on, wanted, expected
):
    monkeypatch.setenv("LATENT_REBALANCE_PRECISION", wanted)
    write_json(tmp_path / "report.json", {"inversion": {"precision": "bfloat16", "device": probed_on}})
    inverter = open_inverter(networks.encoder, networks.generator, CPU, tmp_path / "report.json")
    assert inverter.precision == expected


def test_an_encoder_without_a_mask_channel_sees_the_whole_collage(networks, tmp_path):
    encoder = ResNetEncoder((6, 8), width=4, masked=False, small=True)
    save_weights(tmp_path / "rgb.safetensors", encoder, {})
    inverter = Inverter(tmp_path / "rgb.safetensors", networks.generator, CPU)
    assert inverter(draw(2), torch.zeros(2, 1, 16, 16)).equal(inverter(draw(2)))


def test_an_encoder_of_another_latent_space_is_refused(networks, tmp_path):
    save_weights(tmp_path / "other.safetensors", ResNetEncoder((8,), width=4, small=True), {})
    with pytest.raises(WeightsError, match=r"other\.safetensors predicts latents of shape \(8,\)"):
        Inverter(tmp_path / "other.safetensors", networks.generator, CPU)

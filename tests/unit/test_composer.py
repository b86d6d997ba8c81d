"""The composer edits single images, keeps versions with their lineage, and answers this machine alone."""

from __future__ import annotations

import base64
import builtins
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from pipeline_lib import cli
from pipeline_lib.composer import opening
from pipeline_lib.composer.opening import open_composer
from pipeline_lib.composer.server import create_app
from pipeline_lib.composer.session import Composer, Request
from pipeline_lib.config import load_config
from pipeline_lib.imaging.png import LINEAGE
from pipeline_lib.runtime.errors import ConfigError, DataError

SIDE = 32
CPU = torch.device("cpu")
RED, GREY = (250, 0, 0), (128, 128, 128)


class Dimming:
    """An inverter that halves every value, so that its composite is told from the collage."""

    generator = SimpleNamespace(resolution=SIDE)
    device = CPU

    def __call__(self, images, known):
        self.known = known
        return images / 2


def plain(colour):
    return np.broadcast_to(np.array(colour, np.uint8), (SIDE, SIDE, 3))


def mask_of(*places):
    values = np.zeros((SIDE, SIDE), np.uint8)
    for place in places:
        values[place] = 1
    return base64.b64encode(values.tobytes()).decode()


MIDDLE = (slice(8, 16), slice(4, 20))


@pytest.fixture
def composer():
    return Composer(Dimming(), {"grey": plain(GREY), "red": plain(RED)}, {"generator": "abc"})


@pytest.fixture
def client(composer):
    return TestClient(create_app(composer), base_url="http://127.0.0.1:7860")


def test_an_edit_has_its_three_stages_and_leaves_the_rest_as_it_is(composer):
    edit = composer.edit(Request(image="grey", mask=mask_of(MIDDLE), donor="red", buffer=2, finish="none"))
    assert (edit.collage[MIDDLE] == RED).all()
    assert (edit.collage[0] == GREY).all()
    np.testing.assert_allclose(edit.composite[MIDDLE][..., 0], 189, atol=1)  # half way from mid-grey to red
    np.testing.assert_array_equal(edit.finished, edit.composite)
    assert composer.inverter.known.sum() == SIDE**2 - (12 * 20 - 8 * 16)  # a ring of two pixels is unknown
    kept = composer.edit(Request(image="grey", mask=mask_of(MIDDLE), donor="red", buffer=2, finish="detail")).finished
    outside = np.ones((SIDE, SIDE), bool)
    outside[6:18, 2:22] = False
    assert (kept[outside] == GREY).all()


def test_a_colour_is_pasted_like_a_donor(composer):
    edit = composer.edit(Request(image="grey", mask=mask_of(MIDDLE), colour=RED))
    assert (edit.collage[MIDDLE] == RED).all()


def test_without_a_region_nothing_changes(composer):
    edit = composer.edit(Request(image="grey", mask=mask_of(), donor="red"))
    assert (edit.finished == GREY).all()


def test_a_version_remembers_every_step_from_its_original(composer):
    first = composer.keep(Request(image="grey", mask=mask_of(MIDDLE), donor="red", finish="none"))
    second = composer.keep(Request(image=first, mask=mask_of((0, 0)), colour=RED))
    assert (first, second) == ("grey-edit-1", "grey-edit-2")
    lineage = composer.lineage(second)
    assert (lineage["original"], lineage["synthetic"], lineage["models"]) == ("grey", True, {"generator": "abc"})
    assert [step["pasted_pixels"] for step in lineage["steps"]] == [128, 1]
    assert [step["donor"] for step in lineage["steps"]] == ["red", None]
    assert lineage["steps"][0]["mask"] == mask_of(MIDDLE)  # enough to make the edit again
    assert (composer.pixels("grey") == GREY).all()
    assert not composer.lineage("grey")["synthetic"]  # as it was given
    third = composer.keep(Request(image="red", mask=mask_of((0, 0)), donor=first))
    assert composer.lineage(third)["steps"][0]["donor_lineage"] == composer.lineage(first)


def test_no_version_takes_the_name_of_an_image():
    composer = Composer(Dimming(), {"red": plain(RED), "red-edit-1": plain(GREY)})
    assert composer.keep(Request(image="red", mask=mask_of((0, 0)), colour=RED)) == "red-edit-2"
    assert (composer.pixels("red-edit-1") == GREY).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image": "blue"}, "no image blue; reload the page"),
        ({"mask": "AAAA"}, "the mask has 3 bytes; it needs 1024 of 0 or 1, one for each pixel"),
        ({"mask": base64.b64encode(bytes([2]) * SIDE**2).decode()}, "the mask has 1024 bytes; it needs 1024 of 0 or 1"),
        ({"mask": "?"}, "the mask is not base64"),
        ({"colour": [0, 0, 0]}, "give either a donor or a colour"),
        ({"donor": None}, "give either a donor or a colour"),
        ({"donor": None, "colour": [0, 0, 300]}, "is not in 0 to 255"),
        ({"donor": None, "colour": [0, 0, 0], "finish": "detail"}, "a colour has no detail to keep"),
        ({"strength": 2}, "strength: Extra inputs are not permitted"),
    ],
)
def test_a_request_that_cannot_be_met_is_answered_in_one_line(changed, message, client):
    request = {"image": "grey", "mask": mask_of(MIDDLE), "donor": "red"} | changed
    for path in ("/edit", "/keep"):
        answer = client.post(path, json=request)
        assert answer.status_code == 400
        assert message in answer.json()["error"]
        assert "\n" not in answer.json()["error"]


def test_the_page_gets_images_edits_and_downloads_with_their_lineage(client, composer):
    assert "<title>Composer" in client.get("/").text
    shown = client.get("/images").json()
    assert (shown["side"], list(shown["images"])) == (SIDE, ["grey", "red"])
    request = {"image": "grey", "mask": mask_of(MIDDLE), "donor": "red", "finish": "none"}
    found = client.post("/edit", json=request).json()
    made = composer.edit(Request(**request))
    for stage in ("collage", "composite", "finished"):
        decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[stage].partition(",")[2]))))
        np.testing.assert_array_equal(decoded, getattr(made, stage))
    name = client.post("/keep", json=request).json()["name"]
    answer = client.get(f"/download/{name}.png")
    with Image.open(io.BytesIO(answer.content)) as image:
        np.testing.assert_array_equal(np.asarray(image), made.finished)
        assert json.loads(image.text[LINEAGE]) == composer.lineage(name)
    assert answer.headers["content-disposition"].endswith(f"{name}.png")
    assert client.get("/download/nothing.png").status_code == 400


def test_other_sites_are_refused(client):
    request = json.dumps({"image": "grey", "mask": mask_of(MIDDLE), "donor": "red"})
    assert client.post("/edit", content=request, headers={"Content-Type": "text/plain"}).status_code == 400
    assert client.get("/images", headers={"Host": "evil.example"}).status_code == 400


def test_it_opens_with_the_weights_of_a_config_and_with_images_of_a_folder(tmp_path):
    config = load_config("config/config.yaml")
    samples = open_composer(config, None, None, 3, CPU)
    assert list(samples.images) == ["sample-00", "sample-01", "sample-02"]
    assert set(samples.models) == {"generator", "encoder"}
    Image.fromarray(np.zeros((80, 90, 3), np.uint8)).save(tmp_path / "black.png")
    own = open_composer(config, None, tmp_path, 3, CPU)
    assert own.pixels("black").shape == (64, 64, 3)
    Image.fromarray(np.zeros((80, 90, 3), np.uint8)).save(tmp_path / "Zoë 1.png")
    named = TestClient(create_app(open_composer(config, None, tmp_path, 3, CPU)), base_url="http://localhost")
    assert named.get("/download/Zo%C3%AB%201.png").headers["content-disposition"].endswith("Zo%C3%AB%201.png")
    Image.fromarray(np.zeros((80, 90, 3), np.uint8)).save(tmp_path / "black.jpg")
    with pytest.raises(DataError, match=r"black\.(png|jpg): another image in this folder has the same name"):
        open_composer(config, None, tmp_path, 3, CPU)
    (tmp_path / "black.jpg").unlink()
    with pytest.raises(DataError, match="no images"):
        open_composer(config, None, tmp_path / "none", 3, CPU)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png: "):
        open_composer(config, None, tmp_path, 3, CPU)


def test_missing_networks_are_named(tmp_path):
    config = load_config("config/config.yaml")
    with pytest.raises(ConfigError, match=r"generator\.safetensors: this run has trained no such network yet"):
        open_composer(config, tmp_path, None, 3, CPU)
    without = config.model_copy(update={"encoder": config.encoder.model_copy(update={"weights": None})})
    with pytest.raises(ConfigError, match=r"`encoder.weights` is not set; set it, or name a finished run"):
        open_composer(without, None, None, 3, CPU)


def test_the_networks_of_a_run_are_used(tmp_path, monkeypatch):
    paths = [tmp_path / "models/source/generator.safetensors", tmp_path / "models/encoder.safetensors"]
    for path, given in zip(paths, ("generator", "encoder"), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(opening.Path(f"resources/avatars-64/{given}.safetensors").resolve())
    assert open_composer(load_config("config/config.yaml"), tmp_path, None, 2, CPU).side == 64


def test_without_the_web_libraries_the_command_that_installs_them_is_said(monkeypatch, capsys):
    importing = builtins.__import__

    def refuse(name, *rest):
        if name == "pipeline_lib.composer.server":
            raise ModuleNotFoundError("no starlette", name="starlette")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert cli.main(["compose"]) == 2
    assert "the composer needs starlette" in (error := capsys.readouterr().err)
    assert "pip install 'latent-rebalance[compose]'" in error

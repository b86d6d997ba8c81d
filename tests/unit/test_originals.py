"""An edit goes back into its file, of which nothing else changes."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from pipeline_lib.data.images import TURNS, open_photograph
from pipeline_lib.data.originals.jpeg import edit_jpeg
from pipeline_lib.data.originals.origin import Patch, facts_of, write_patch

EXIF = Image.Exif()
EXIF[ExifTags.Base.Make] = "A camera"
REACH = 16  # pixels beside an edit that its blocks, of halved channels and interpolated, may touch

KINDS = {
    "4:2:0": {"quality": 85},
    "4:2:2": {"quality": 92, "subsampling": 1},
    "4:4:4": {"quality": 95, "subsampling": 0},
    "own tables": {"quality": 85, "optimize": True},
    "restart markers": {"quality": 75, "restart_marker_rows": 1},
    "metadata": {"quality": 85, "exif": EXIF, "comment": b"taken at noon"},
}


@pytest.fixture
def picture():
    """Return a smooth picture with noise, of odd sides."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:181, :247] / 247
    smooth = 128 + 90 * np.sin(np.stack([5 * x + y, 4 * y, 7 * x * y], axis=2))
    return Image.fromarray(np.clip(smooth + random.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8))


def region_of(pixels):
    """Return a patch that brightens a rectangle of a picture, and where nothing may change."""
    rows, columns = slice(60, 100), slice(90, 150)
    outside = np.ones(pixels.shape[:2], bool)
    outside[60 - REACH : 100 + REACH, 90 - REACH : 150 + REACH] = False
    return Patch(60, 90, pixels[rows, columns] * 0.7 + 60.0), outside


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_a_change_is_the_same_file_and_with_one_the_same_elsewhere(picture, tmp_path, kind):
    path = tmp_path / "a.jpg"
    picture.save(path, **KINDS[kind])
    content, before = path.read_bytes(), np.asarray(Image.open(path))
    assert edit_jpeg(path, before, before) == content
    patch, outside = region_of(before)
    edited = write_patch(path, patch)
    after = np.asarray(Image.open(BytesIO(edited)))
    assert np.array_equal(after[outside], before[outside])
    wanted = before.copy()
    wanted[60:100, 90:150] = patch.pixels.round()
    assert np.abs(after.astype(int) - wanted)[64:96, 96:144].mean() < 4
    assert abs(len(edited) - len(content)) < 0.04 * len(content)
    head = content.index(b"\xff\xda")
    assert kind == "own tables" or edited[:head] == content[:head]
    assert Image.open(BytesIO(edited)).info == Image.open(path).info


def test_a_code_that_the_files_own_tables_lack_is_added_to_them(picture, tmp_path):
    path = tmp_path / "flat.jpg"
    Image.new("RGB", (64, 64), "grey").save(path, optimize=True)  # with hardly a code
    before = np.asarray(Image.open(path))
    wanted = np.asarray(picture.crop((0, 0, 64, 64)))
    after = np.asarray(Image.open(BytesIO(edit_jpeg(path, before, wanted))))
    again = tmp_path / "again.jpg"
    picture.crop((0, 0, 64, 64)).save(again, optimize=True)
    coded_once = np.asarray(Image.open(again)).astype(int)
    assert np.abs(after - coded_once).mean() < 2


@pytest.mark.parametrize("orientation", [1, *TURNS])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_edit_of_the_upright_picture_lies_where_it_was_made(picture, tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture.save(path, exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    before = np.asarray(open_photograph(path).image)
    patch, outside = region_of(before)
    path.write_bytes(write_patch(path, patch))
    after = np.asarray(open_photograph(path).image)
    assert np.array_equal(after[outside], before[outside])
    assert np.abs(after[60:100, 90:150] - patch.pixels)[4:-4, 4:-4].mean() < 3
    assert Image.open(path).getexif()[ExifTags.Base.Orientation] == orientation


def test_a_file_with_a_profile_keeps_it_and_gets_its_colours(picture, tmp_path):
    path = tmp_path / "a.png"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(path, icc_profile=profile)
    before = np.asarray(open_photograph(path).image)
    patch, outside = region_of(before)
    path.write_bytes(write_patch(path, patch))
    after = np.asarray(open_photograph(path).image)
    assert np.array_equal(after[outside], before[outside])
    assert np.abs(after[60:100, 90:150] - patch.pixels).max() <= 3
    assert Image.open(path).info["icc_profile"] == profile


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_png_keeps_its_mode_its_chunks_and_every_pixel_outside_the_edit(picture, tmp_path, mode):
    path, said = tmp_path / "a.png", PngImagePlugin.PngInfo()
    said.add_text("Author", "nobody")
    picture.convert(mode).save(path, pnginfo=said, dpi=(300, 300))
    before = np.asarray(Image.open(path))
    patch, _ = region_of(np.asarray(open_photograph(path).image))
    path.write_bytes(write_patch(path, patch))
    after = Image.open(path)
    assert after.mode == mode and after.text == {"Author": "nobody"} and round(after.info["dpi"][0]) == 300
    changed = np.asarray(after) != before
    changed = changed.any(axis=2) if changed.ndim == 3 else changed
    assert changed[60:100, 90:150].mean() > 0.8
    changed[60:100, 90:150] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("a.jpg", {"progressive": True}, "progressive JPEG"),
        ("cmyk.jpg", {}, "JPEG of 4 channels"),
        ("p.png", {}, "PNG with a palette"),
        ("a.webp", {}, "WEBP file"),
        ("a.bmp", {}, "BMP file"),
    ],
)
def test_a_file_that_cannot_be_edited_says_why(picture, tmp_path, name, options, reason):
    mode = {"cmyk.jpg": "CMYK", "p.png": "P"}.get(name, "RGB")
    picture.convert(mode).save(tmp_path / name, **options)
    assert facts_of(tmp_path / name).not_editable == reason

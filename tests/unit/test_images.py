"""An image file is read as it is meant to be seen, or is refused in one line that names it; never anything else."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline_lib.data.images import load_codes, load_square, open_photograph
from pipeline_lib.data.readers.celeba import load_parts
from pipeline_lib.data.sources import BadImageError, Record

D50 = np.array([0.9642, 1.0, 0.8249])  # white of the profile connection space
D65 = (0.3127, 0.3290)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # IEC 61966-2-1
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))  # Adobe RGB (1998), 4.3.1.1
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))  # SMPTE EG 432-1
ADOBE_GAMMA = 563 / 256
ORIENTATION = 0x0112
NOISE = np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8)

#: Rows and columns of the upright image, from those of the stored one (EXIF 2.32, 4.6.4 A, Orientation).
TURNED = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


def to_linear(values):
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def from_linear(values):
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * np.maximum(values, 0) ** (1 / 2.4) - 0.055)


def xyz_of(chromaticity):
    x, y = chromaticity
    return np.array([x / y, 1, (1 - x - y) / y])


def to_xyz(primaries):
    """Matrix from linear RGB to XYZ under D65, (3, 3)."""
    columns = np.stack([xyz_of(primary) for primary in primaries], 1)
    return columns * np.linalg.solve(columns, xyz_of(D65))


def to_d50():
    """Bradford's matrix from D65 to D50, (3, 3)."""
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    return np.linalg.inv(cones) @ np.diag((cones @ D50) / (cones @ xyz_of(D65))) @ cones


def icc(space, device=b"mntr", connection=b"XYZ ", **tags):
    """An ICC profile, version 2; `{name: bytes}` are its tags (ICC.1:2001-04)."""
    directory, data = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        directory += struct.pack(">4sII", tag.encode(), 132 + 12 * len(tags) + len(data), len(value))
        data += value + b"\0" * (-len(value) % 4)
    body = directory + data
    head = struct.pack(">I4sI4s4s4s12x4s28x", 128 + len(body), b"", 0x02100000, device, space, connection, b"acsp")
    return (head + fixed(D50)).ljust(128, b"\0") + body


def fixed(values):
    return struct.pack(f">{len(values)}i", *(round(65536 * value) for value in values))


def described(name):
    text = name.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78


def curve(gamma):
    """A power, or the curve of sRGB where it is None."""
    if gamma is not None:
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma))
    return (
        b"curv\0\0\0\0"
        + struct.pack(">I", 1024)
        + np.rint(65535 * to_linear(np.linspace(0, 1, 1024))).astype(">u2").tobytes()
    )


def rgb_profile(name, primaries, gamma=None):
    colorants = (to_d50() @ to_xyz(primaries)).T
    tags = {tag: b"XYZ \0\0\0\0" + fixed(xyz) for tag, xyz in zip(("rXYZ", "gXYZ", "bXYZ"), colorants, strict=True)}
    tags["wtpt"] = b"XYZ \0\0\0\0" + fixed(xyz_of(D65))  # as Adobe's; white stays white all the same
    return icc(b"RGB ", desc=described(name), **tags, **dict.fromkeys(("rTRC", "gTRC", "bTRC"), curve(gamma)))


def gray_profile(gamma):
    return icc(b"GRAY", desc=described("Gray"), wtpt=b"XYZ \0\0\0\0" + fixed(D50), kTRC=curve(gamma))


def cmyk_profile(overprints):
    """A press on yellow paper, by the sRGB colours of its 16 overprints beside it, (2, 2, 2, 2, 3) by C, M, Y and K."""
    ratio = to_linear(overprints / 255) @ (to_d50() @ to_xyz(SRGB)).T / D50
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    lab = np.stack([(116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128], -1)
    ramp = bytes(range(256))
    table = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 2) + fixed(np.eye(3).ravel())
    table += 4 * ramp + np.rint(lab).astype(np.uint8).tobytes() + 3 * ramp
    return icc(
        b"CMYK",
        b"prtr",
        b"Lab ",
        desc=described("Press"),
        wtpt=b"XYZ \0\0\0\0" + fixed(D50 * (0.9, 0.9, 0.7)),
        A2B0=table,
    )


def saved(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def read(data):
    return open_photograph(io.BytesIO(data))


def seeds():
    """Twenty sound files of all formats, with most colour modes, and with EXIF and profiles."""
    image = Image.fromarray(NOISE)
    profile = rgb_profile("Display P3", DISPLAY_P3)
    exif = Image.Exif()
    exif.update({ORIENTATION: 6, 0x010F: "Camera", 0x011A: 72.0, 0x0132: "2024:01:01 00:00:00"})
    exif.get_ifd(0x8769)[0xA001] = 1
    both = {"exif": exif.tobytes(), "icc_profile": profile}
    alpha = np.dstack([NOISE, np.full(NOISE.shape[:2], 255, np.uint8)])
    cmyk = cmyk_profile(np.zeros((2, 2, 2, 2, 3)))
    return [
        saved(image, "JPEG"),
        saved(image, "JPEG", **both),
        saved(image, "JPEG", progressive=True, **both),
        saved(image.convert("L"), "JPEG", icc_profile=gray_profile(2.2)),
        saved(image.convert("CMYK"), "JPEG", icc_profile=cmyk),
        saved(image, "PNG"),
        saved(image, "PNG", **both),
        saved(image.quantize(16), "PNG", transparency=b"\xff" * 16),
        saved(image.convert("1"), "PNG"),
        saved(Image.fromarray(alpha), "PNG", icc_profile=profile),
        png16(NOISE.astype(np.uint16) * 257),
        saved(image, "WEBP", **both),
        saved(image, "WEBP", lossless=True, **both),
        saved(image, "TIFF", **both),
        saved(image, "TIFF", compression="tiff_lzw", icc_profile=profile),
        saved(image.convert("CMYK"), "TIFF", compression="tiff_deflate"),
        saved(image, "BMP"),
        saved(image, "AVIF", **both),
        saved(Image.fromarray(alpha), "AVIF"),
        saved(image.quantize(16), "GIF"),
    ]


def png16(values):
    """A PNG file of 16 bits a channel, which Pillow does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values[0, 0].size]
    head = struct.pack(">2I5B", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def damaged(data, random):
    """Return a file cut short, flipped, overwritten, stretched, or damaged in its header, its EXIF or its profile."""
    data = bytearray(data)
    kind = random.integers(7)
    marks = [
        place for mark in (b"Exif", b"II*\0", b"MM\0*", b"acsp", b"iCCP", b"IHDR") if (place := data.find(mark)) > 0
    ]
    if kind == 0:
        return bytes(data[: random.integers(len(data))])
    if kind in (1, 2):
        start, end = (0, min(64, len(data))) if kind == 1 else (0, len(data))
    else:
        start = int(random.choice(marks)) if marks else 0
        end = min(start + int(random.choice([24, 120, 600])), len(data))
    places = random.integers(start, end, random.integers(1, 9))
    if kind == 6:
        del data[places[0] : places[0] + random.integers(1, 40)]
    for place in places:
        if kind == 5:
            data[place] = random.choice([0, 255, 1, 127])
        elif kind != 6:
            data[place] ^= 1 << random.integers(8)
    return bytes(data)


def test_a_damaged_file_becomes_a_record_or_one_line_that_names_it(tmp_path):
    random, sound = np.random.default_rng(31), seeds()
    suffixes = (".jpg", ".png", ".webp", ".tif", ".bmp", ".avif")
    refused = 0
    for number in range(500):
        path = tmp_path / f"{number}{random.choice(suffixes)}"
        path.write_bytes(damaged(sound[number % len(sound)], random))
        try:
            record = load_square(path, 16)
        except BadImageError as reason:
            assert path.name in str(reason)
            assert str(reason).isprintable()
            refused += 1
        else:
            assert isinstance(record, Record)
            assert (record.image.shape, record.image.dtype) == ((16, 16, 3), np.uint8)
    assert 100 < refused < 500


def test_the_files_that_the_fuzz_damages_are_sound():
    for data in seeds():
        assert load_square(io.BytesIO(data), 16).image.shape == (16, 16, 3)


@pytest.mark.parametrize(
    "error", [MemoryError, RecursionError, OverflowError, EOFError, zlib.error, SyntaxError, KeyError]
)
def test_whatever_a_decoder_raises_is_the_files_fault(tmp_path, monkeypatch, error):
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(NOISE)))

    def fail(self):
        raise error("of\ntwo lines")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)
    with pytest.raises(BadImageError, match=r"^a.png cannot be read \('?of.*two lines'?\)$"):
        load_square(tmp_path / "a.png", 16)


def test_an_absurd_size_is_refused_before_memory_is_taken():
    data = bytearray(saved(Image.fromarray(NOISE)))
    data[16:24] = struct.pack(">2I", 2_000_000, 2_000_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(BadImageError, match="more than 89,478,485 pixels"):
        read(bytes(data))


def exif_of(*entries, end=b"\0\0\0\0"):
    """An EXIF block of entries (tag, type, count, four bytes)."""
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    return block + b"".join(struct.pack("<HHL4s", *entry) for entry in entries) + end


def test_an_image_is_read_where_damage_of_exif_leaves_the_orientation():
    text = (0x011A, 2, 4, b"abc\0")  # the resolution, a number
    outside = (0x0131, 2, 99, b"\xff\0\0\0")  # the software's name, beyond the end
    for entries in ([(ORIENTATION, 3, 1, b"\x06\0\0\0"), text], [(ORIENTATION, 3, 1, b"\x06\0\0\0"), outside]):
        for form in ("JPEG", "PNG", "WEBP"):
            photograph = read(saved(Image.fromarray(NOISE), form, exif=exif_of(*entries)))
            assert (photograph.orientation, photograph.image.size) == (6, (24, 36))


@pytest.mark.parametrize(
    ("exif", "reason"),
    [
        (b"Exif\0\0rubbish, and no TIFF", "cannot be read"),
        (exif_of((0x010F, 2, 4, b"abc\0"))[:20], "the orientation of .* is unknown, as its EXIF is damaged"),
        (exif_of((ORIENTATION, 2, 4, b"six\0")), "the EXIF orientation of .* is 'six', not 1 to 8"),
        (exif_of((ORIENTATION, 3, 1, b"\x09\0\0\0")), "the EXIF orientation of .* is 9, not 1 to 8"),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_image_of_unknown_orientation_is_refused(form, exif, reason):
    with pytest.raises(BadImageError, match=reason):
        read(saved(Image.fromarray(NOISE), form, exif=exif))


def test_cameras_that_write_orientation_0_mean_none():
    photograph = read(saved(Image.fromarray(NOISE), exif=turned(0)))
    assert photograph.orientation == 1
    assert (np.asarray(photograph.image) == NOISE).all()


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("options", [{"form": "PNG"}, {"form": "TIFF"}, {"form": "TIFF", "compression": "tiff_lzw"}])
def test_an_image_is_turned_upright(orientation, options):
    photograph = read(saved(Image.fromarray(NOISE), exif=tiff_exif(orientation), **options))
    assert photograph.orientation == orientation
    assert (np.asarray(photograph.image) == TURNED[orientation](NOISE)).all()


def tiff_exif(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("form", ["JPEG", "WEBP", "AVIF"])
def test_a_lossy_image_is_turned_upright(orientation, form):
    stored = np.zeros((24, 36, 3), np.uint8)
    stored[:8, :24] = 200  # no turn of which is another
    photograph = read(saved(Image.fromarray(stored), form, exif=turned(orientation), quality=95))
    assert photograph.orientation == orientation
    assert np.abs(np.asarray(photograph.image, int) - TURNED[orientation](stored)).mean() < 10


CODES = np.random.default_rng(1).integers(0, 5, NOISE.shape[:2], np.uint8)


def codes_beside(tmp_path, orientation, mask, image=NOISE, **options):
    (tmp_path / "mask.png").write_bytes(saved(Image.fromarray(mask), **options))
    return load_codes(tmp_path / "mask.png", 24, 5, read(saved(Image.fromarray(image), exif=turned(orientation))))


def middle(codes):
    """The middle square, whichever way its 24 by 36 pixels lie."""
    return codes[6:30] if codes.shape[0] == 36 else codes[:, 6:30]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_stored_pixels_is_turned_with_its_photograph(tmp_path, orientation):
    upright = TURNED[orientation](CODES)
    assert (codes_beside(tmp_path, orientation, CODES) == middle(upright)).all()
    assert (codes_beside(tmp_path, orientation, upright) == middle(upright)).all()


@pytest.mark.parametrize("orientation", TURNED)
def test_a_mask_with_exif_of_its_own_is_turned_by_it(tmp_path, orientation):
    upright = TURNED[orientation](CODES)
    assert (codes_beside(tmp_path, orientation, CODES, exif=turned(orientation)) == middle(upright)).all()
    assert (codes_beside(tmp_path, orientation, upright, exif=turned(1)) == middle(upright)).all()


@pytest.mark.parametrize(("orientation", "cut"), [(2, 36), (3, 36), (4, 36), (5, 24), (6, 24), (7, 24), (8, 24)])
def test_a_mask_that_fits_either_way_is_refused(tmp_path, orientation, cut):
    with pytest.raises(BadImageError, match=rf"mask.png .* EXIF orientation {orientation}; save the image"):
        codes_beside(tmp_path, orientation, CODES[:, :cut], NOISE[:, :cut])


@pytest.mark.parametrize(
    ("shape", "fits"), [((24, 36), True), ((48, 72), True), ((8, 12), True), ((11, 16), True), ((36, 24), False),
                        ((24, 24), False), ((24, 34), False)]
)  # fmt: skip
def test_a_mask_has_the_shape_of_its_image(tmp_path, shape, fits):
    mask = np.full(shape, 3, np.uint8)
    if fits:
        assert (codes_beside(tmp_path, 1, mask) == 3).all()
    else:
        with pytest.raises(
            BadImageError, match=f"mask.png has {shape[1]} by {shape[0]} pixels, but its image 36 by 24"
        ):
            codes_beside(tmp_path, 1, mask)


def test_a_larger_mask_lies_where_its_photograph_does(tmp_path):
    upright = TURNED[6](CODES)
    assert (codes_beside(tmp_path, 6, CODES.repeat(2, 0).repeat(2, 1)) == middle(upright)).all()


def test_the_published_masks_beside_a_turned_image_are_refused(tmp_path):
    (tmp_path / "0").mkdir()
    Image.new("L", (512, 512), 255).save(tmp_path / "0/00000_skin.png")
    photograph = read(saved(Image.new("RGB", (64, 64)), exif=turned(3)))
    with pytest.raises(BadImageError, match=r"00000_\*.png may be made for its image as stored or as turned"):
        load_parts(tmp_path, 0, 64, photograph)


PROFILES = {
    "Adobe RGB (1998)": (ADOBE_RGB, ADOBE_GAMMA),
    "Display P3": (DISPLAY_P3, None),
    "gamma 2.2": (SRGB, 2.2),
}


@pytest.mark.parametrize("name", PROFILES)
def test_colours_are_converted_to_srgb(name):
    primaries, gamma = PROFILES[name]
    linear = (NOISE / 255) ** gamma if gamma else to_linear(NOISE / 255)
    expected = 255 * from_linear(np.clip(linear @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).T, 0, 1))
    profile = rgb_profile(name, primaries, gamma)
    for form, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        photograph = read(saved(Image.fromarray(NOISE), form, icc_profile=profile, **options))
        assert photograph.conversions == (f"{name} to sRGB",)
        assert np.abs(np.asarray(photograph.image) - expected).max() < 1.5


def test_skin_of_adobe_rgb_is_skin():
    stored = Image.new("RGB", (8, 8), (127, 86, 44))
    profile = rgb_profile("Adobe RGB (1998)", ADOBE_RGB, ADOBE_GAMMA)
    assert np.abs(np.asarray(read(saved(stored, icc_profile=profile)).image, int) - (141, 85, 36)).max() <= 1


@pytest.mark.parametrize(
    "profile",
    [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), rgb_profile("Camera's own", SRGB)],
    ids=["lcms", "another name"],
)
def test_a_profile_that_is_srgb_moves_no_pixel(profile):
    for form in ("JPEG", "PNG"):
        photograph = read(saved(Image.fromarray(NOISE), form, icc_profile=profile))
        assert photograph.conversions == ()
        assert photograph.image.tobytes() == read(saved(Image.fromarray(NOISE), form)).image.tobytes()


def test_greys_are_converted_by_profiles_of_greys_and_of_colours():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = 255 * from_linear((ramp / 255) ** 2.2)
    for profile, name in ((gray_profile(2.2), "Gray"), (rgb_profile("gamma 2.2", SRGB, 2.2), "gamma 2.2")):
        photograph = read(saved(Image.fromarray(ramp), icc_profile=profile))
        assert photograph.conversions == ("grey to RGB", f"{name} to sRGB")
        assert np.abs(np.asarray(photograph.image) - expected[..., None]).max() < 1.5


def test_inks_are_converted_by_their_profile():
    overprints = np.random.default_rng(2).integers(64, 224, (2, 2, 2, 2, 3))
    overprints[1, 1, 1, 1] = 0  # the black point
    overprints[0, 0, 0, 0] = 255
    inks = np.stack(np.meshgrid(*[[0, 255]] * 4, indexing="ij"), -1).astype(np.uint8).reshape(4, 4, 4)
    stored = Image.frombytes("CMYK", (4, 4), inks.tobytes())
    photograph = read(saved(stored, "TIFF", icc_profile=cmyk_profile(overprints)))
    assert photograph.conversions == ("CMYK to RGB", "Press to sRGB")
    assert np.abs(np.asarray(photograph.image, int) - overprints.reshape(4, 4, 3)).max() <= 4  # eight bits of Lab


def test_inks_of_jpeg_files_are_stored_inverted():
    white, cyan = Image.new("CMYK", (16, 16)), Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for form in ("JPEG", "TIFF"):
        assert np.asarray(read(saved(white, form)).image).min() > 250
        assert np.abs(np.asarray(read(saved(cyan, form)).image, int) - (0, 255, 255)).max() < 5


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", rgb_profile("cut", ADOBE_RGB, 2.2)[:200]),
        ("RGB", b"nothing"),
        ("RGB", gray_profile(2.2)),
        ("CMYK", rgb_profile("Adobe RGB (1998)", ADOBE_RGB, ADOBE_GAMMA)),
        ("L", cmyk_profile(np.zeros((2, 2, 2, 2, 3)))),
    ],
)
def test_colours_of_an_unusable_profile_are_unknown(mode, profile):
    for form in ("JPEG", "TIFF"):
        with pytest.raises(BadImageError, match="the colour profile of the image cannot be read"):
            read(saved(Image.fromarray(NOISE).convert(mode), form, icc_profile=profile))


def test_a_profile_of_which_a_piece_is_lost_is_unusable():
    profile = rgb_profile("long", ADOBE_RGB, None) + b"\0" * 100_000
    data = saved(Image.fromarray(NOISE), "JPEG", icc_profile=profile)
    assert read(data).conversions == ("long to sRGB",)
    start = data.index(b"\xff\xe2", data.index(b"\xff\xe2") + 4)
    length = struct.unpack(">H", data[start + 2 : start + 4])[0]
    with pytest.raises(BadImageError, match="the colour profile of the image cannot be read"):
        read(data[:start] + data[start + 2 + length :])


def test_adobe_rgb_without_a_profile_is_refused():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    with pytest.raises(BadImageError, match="Adobe RGB by its EXIF, but has no colour profile"):
        read(saved(Image.fromarray(NOISE), "JPEG", exif=exif))
    profile = rgb_profile("Adobe RGB (1998)", ADOBE_RGB, ADOBE_GAMMA)
    read(saved(Image.fromarray(NOISE), "JPEG", exif=exif, icc_profile=profile))
    exif.get_ifd(0x8769)[0xA005] = {1: "R98"}
    assert read(saved(Image.fromarray(NOISE), "JPEG", exif=exif)).conversions == ()


def with_alpha(least):
    alpha = np.full(NOISE.shape[:2], 255, np.uint8)
    alpha[3, 4] = least
    return np.dstack([NOISE, alpha])


GREY = Image.fromarray(NOISE[..., 0])


@pytest.mark.parametrize(
    ("data", "conversions", "expected"),
    [
        (saved(GREY), ("grey to RGB",), NOISE[..., :1]),
        (saved(GREY.convert("1", dither=0)), ("1-bit to RGB",), 255 * (NOISE[..., :1] > 127)),
        (saved(GREY.convert("P")), ("palette to RGB",), NOISE[..., :1]),
        (saved(GREY.convert("P"), transparency=b"\xff" * 256), ("opaque alpha dropped", "palette to RGB"),
         NOISE[..., :1]),
        (saved(GREY.convert("LA")), ("opaque alpha dropped", "grey to RGB"), NOISE[..., :1]),
        (saved(Image.fromarray(with_alpha(255))), ("opaque alpha dropped",), NOISE),
        (saved(Image.fromarray(with_alpha(250))), ("nearly opaque alpha dropped",), NOISE),
        (saved(Image.new("RGB", (36, 24), (9, 9, 9)), transparency=(1, 2, 3)), ("opaque alpha dropped",), 9),
        (png16(NOISE.astype(np.uint16) * 257), ("16 to 8 bits",), NOISE),
        (png16(NOISE[..., 0].astype(np.uint16) * 257), ("16 to 8 bits", "grey to RGB"), NOISE[..., :1]),
        (png16(with_alpha(255).astype(np.uint16) * 257), ("16 to 8 bits", "opaque alpha dropped"), NOISE),
        (saved(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257), "TIFF"), ("16 to 8 bits", "grey to RGB"),
         NOISE[..., :1]),
        (saved(Image.fromarray(NOISE).convert("CMYK"), "TIFF"), ("CMYK without a profile to RGB",), NOISE),
        (saved(GREY, "GIF"), ("palette to RGB",), NOISE[..., :1]),
    ],
)  # fmt: skip
def test_what_keeps_its_meaning_is_converted_and_counted(data, conversions, expected):
    photograph = read(data)
    assert photograph.conversions == conversions
    assert photograph.square(24).conversions == conversions
    assert (np.asarray(photograph.image) == np.broadcast_to(expected, NOISE.shape)).all()


def test_16_bits_are_scaled_and_not_clipped():
    values = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    for given in (values, np.dstack([values] * 3)):
        assert np.abs(np.asarray(read(png16(given)).image) - 255 * (values / 65535)[..., None]).max() <= 1


def tiff16(values, photometric):
    data = saved(Image.fromarray(values), "TIFF")
    entry = struct.pack("<HHL", 262, 3, 1)
    return data.replace(entry + struct.pack("<H", 1), entry + struct.pack("<H", photometric))


ANIMATION = {"save_all": True, "append_images": [Image.fromarray(255 - NOISE)]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (saved(Image.fromarray(with_alpha(249))), "is transparent"),
        (saved(GREY.convert("LA").point(lambda value: value // 2)), "is transparent"),
        (saved(GREY.convert("P"), transparency=int(NOISE[0, 0, 0])), "is transparent"),
        (saved(Image.new("RGB", (36, 24), (9, 9, 9)), transparency=(9, 9, 9)), "is transparent"),
        (png16(NOISE.astype(np.uint16)), "at most 12 of its 16 bits"),
        (png16(NOISE[..., 0].astype(np.uint16) * 16), "at most 12 of its 16 bits"),
        (tiff16(NOISE[..., 0].astype(np.uint16) * 257, 0), "16 bits, and 0 for white"),
        (saved(GREY.convert("F"), "TIFF"), "colour mode of the image is F"),
        (saved(GREY.convert("I"), "TIFF"), "colour mode of the image is I"),
        (saved(Image.fromarray(NOISE), "EPS"), "damaged, or none of JPEG, PNG"),
        *(
            (saved(Image.fromarray(NOISE), form, **ANIMATION), "several images")
            for form in ("PNG", "WEBP", "GIF", "TIFF")
        ),
    ],
)
def test_what_would_lose_its_meaning_is_refused(data, reason):
    with pytest.raises(BadImageError, match=reason):
        read(data)


def test_the_photograph_of_a_phones_file_is_its_first_image():
    others = [Image.new("RGB", (16, 16))]
    data = saved(Image.new("RGB", (16, 16), (200, 90, 40)), "MPO", save_all=True, append_images=others)
    assert np.abs(np.asarray(read(data).image, int) - (200, 90, 40)).max() < 4

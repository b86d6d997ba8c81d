"""A folder of labelled JPEG files of odd sizes, to try a config for photographs without a dataset.

    python -m pipeline_lib tools photos data/photos 5000
    snakemake --cores 2 --configfile config/examples/photos-laptop.yaml

writes `data/photos/00000.jpg` and so on, and their labels to `data/photos.csv`. The faces are the embedded avatars, of
which the long-haired smile more often than the others. Each face lies in the middle square of a landscape or portrait
format, so that the centre crop holds it as in an aligned photograph.
"""

from __future__ import annotations

import csv
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from pipeline_lib.data.avatars.drawing import render_face
from pipeline_lib.data.avatars.faces import draw_face
from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.runtime import seeding

SHORT_SIDES = (140, 220)  # pixels
WIDEST = 1.6  # ratio of the sides
QUALITIES = (75, 96)  # of the JPEG files
ATTRIBUTES = ("smiling", "long_hair", "eyeglasses")


def write_photos(folder: Path, count: int, seed: int = 0, short_sides: tuple[int, int] = SHORT_SIDES) -> Path:
    """Write JPEG files to a folder, and a table of their labels beside it.

    Args:
        folder: where the files go; made if missing.
        count: number of files.
        seed: seed of the faces and of the formats.
        short_sides: limits of the shorter side of a file, in pixels.

    Returns:
        Path of the table, a CSV with the columns `image` and `ATTRIBUTES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(partial(_write_photo, folder, seed, short_sides), range(count), chunksize=64))
    table = folder.with_name(f"{folder.name}.csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *ATTRIBUTES])
        writer.writerows(rows)
    return table


def _write_photo(folder: Path, seed: int, short_sides: tuple[int, int], index: int) -> list[object]:
    """Write one file, and return its row of the table."""
    settings = AvatarData()
    face = draw_face(seed, index, settings.rates)
    rng = seeding.numpy_generator(seed, "photos", index)
    short = int(rng.integers(*short_sides))
    margin = round(short * rng.uniform(0, WIDEST - 1) / 2)  # on either side of the middle square
    left, top, side = settings.crop
    around = side * margin / short
    drawn, _ = render_face(face, short + 2 * margin, (left - around, top - around, side + 2 * around))
    middle = slice(margin, margin + short)
    photo = drawn[middle] if rng.random() < 0.5 else drawn[:, middle]
    name = f"{index:05d}.jpg"
    Image.fromarray(photo).save(folder / name, quality=int(rng.integers(*QUALITIES)))
    return [name, *(int(face.attributes[attribute]) for attribute in ATTRIBUTES)]

"""Sheets for an audit: images to be labelled by eye, in one page that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.audit.labels import COLUMNS, digest_of_set, sealed_name
from pipeline_lib.audit.pages import TEMPLATES
from pipeline_lib.config import Config
from pipeline_lib.config.names import readable
from pipeline_lib.data.shards import read_shards, shards_in
from pipeline_lib.data.tables import read_table
from pipeline_lib.imaging.png import data_url, encode_png
from pipeline_lib.runtime import seeding
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import atomic_path

#: Unedited images for each edited one, so that nobody knows which are edited, and to check the source; likewise
#: samples of the control GAN for each one of the retrained GAN.
OTHERS = 0.2


@dataclass(frozen=True)
class Sheet:
    """A sheet to draw.

    Attributes:
        config: the config of the run.
        results: its `results/<run>`.
        image_set: a key of `AUDITED`.
        count: number of edited images, or of samples of the retrained GAN.
        number: number of the sheet, from 1 on; sheets of the same count have no image in common.
    """

    config: Config
    results: Path
    image_set: str
    count: int
    number: int

    def draw(self) -> pd.DataFrame:
        """Draw `count` images with the same probability, and mix in some others.

        Returns:
            `COLUMNS` of the CSV, in the order of the page. A sample has a name that does not reveal its GAN, by
            `sealed_name`.

        Raises:
            DataError: the run has no such images yet, or fewer.
        """
        drawn = self._draw_samples() if self.image_set == "retrained" else self._draw_edits()
        digest = digest_of_set(self.image_set, self._shards(self.image_set))
        return drawn.assign(image_set=self.image_set, digest=digest)[list(COLUMNS)]

    def write(self, folder: Path) -> tuple[Path, int]:
        """Write the page on which they are labelled; returns it, and the number of images.

        The page does not show which images are edited, or which GAN made a sample. It saves a CSV, which
        `certify.labels` names in the config, or `rebalance.labels` to plan by it.

        Args:
            folder: folder of the page, made if necessary.

        Raises:
            DataError: as for `draw`, or the page exists.
        """
        name = f"{'samples-' * (self.image_set == 'retrained')}{self.number}"
        page = folder / f"audit-{name}.html"
        if page.exists():
            raise DataError(f"{page} exists, with labels perhaps; choose another folder or `--sheet`")
        drawn = self.draw()
        targets = self.config.rebalance.targets
        attributes = dict.fromkeys(name for target in targets for name in (target.attribute, *target.where))
        text = TEMPLATES.get_template("sheet.html").render(
            title=f"{self.config.run}, sheet {self.number}",
            images=list(zip(drawn["image_id"], self._pictures(drawn["image_id"]), drawn["edit"], strict=True)),
            attributes=[(name, readable(name)) for name in attributes],
            file=f"audit-{self.config.run}-{name}.csv",
            of=drawn[["image_set", "digest"]].iloc[0].to_dict(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(page) as beside:
            beside.write_text(text, encoding="utf-8")
        return page, len(drawn)

    def _draw_edits(self) -> pd.DataFrame:
        path, config = self.results / "labels/dataset_rebalanced.parquet", self.config
        if not path.exists():
            raise DataError(f"{path}: this run has no rebalanced dataset yet; run it first")
        table = read_table(path, "assembled")
        places = {edited: np.flatnonzero(table["edited"].to_numpy() == edited) for edited in (True, False)}
        if self.number * self.count > len(places[True]):
            raise DataError(
                f"sheet {self.number} of {self.count} edited images: only {len(places[True])} images of this run are "
                "edited; use a smaller `--count` or `--sheet`"
            )
        random = seeding.numpy_generator(config.seed, "audit")
        drawn = [
            self._page_of(random.permutation(places[True])),
            self._page_of(random.permutation(places[False]), OTHERS),
        ]
        order = seeding.numpy_generator(config.seed, "audit", self.number).permutation(np.concatenate(drawn))
        rows = table.iloc[order]
        plan = read_table(self.results / "plan/dataset.parquet", "plan").set_index("image_id")
        digests = {attribute: config.rebalance.edits_digest(attribute) for attribute in config.rebalance.edited}
        names = rows["image_id"].to_numpy()
        edits = plan["attribute"].reindex(names).map(digests)
        return pd.DataFrame({"image_id": names, "edit": np.where(rows["edited"], edits, "")})

    def _draw_samples(self) -> pd.DataFrame:
        names = {}
        for gan in ("retrained", "control"):
            path = self.results / f"scores/referee/{gan}.parquet"
            if not path.exists():
                raise DataError(f"{path}: this run has no samples of a retrained GAN yet; run it first, with `retrain`")
            names[gan] = read_table(path, "scores")["image_id"].to_numpy()
        if self.number * self.count > len(names["retrained"]):
            raise DataError(
                f"sheet {self.number} of {self.count} samples: this run has {len(names['retrained'])} of its retrained "
                "GAN; use a smaller `--count` or `--sheet`, or increase `retrain.samples`"
            )
        seed = self.config.seed
        drawn = [
            self._page_of(seeding.numpy_generator(seed, "audit", gan).permutation(names[gan]), share)
            for gan, share in (("retrained", 1), ("control", OTHERS))
        ]
        mixed = seeding.numpy_generator(seed, "audit", "samples", self.number).permutation(np.concatenate(drawn))
        return pd.DataFrame({"image_id": list(map(sealed_name, mixed)), "edit": ""})

    def _page_of(self, shuffled: np.ndarray, share: float = 1) -> np.ndarray:
        """Return the images of this sheet among all, of which each sheet has `share` of the count."""
        count = round(share * self.count)
        return shuffled[(self.number - 1) * count : self.number * count]

    def _pictures(self, drawn: pd.Series) -> list[str]:
        """Return the URL of each image."""
        is_sealed = self.image_set == "retrained"
        sets = ("retrained", "control") if is_sealed else (self.image_set,)
        names, pixels = read_shards([path for name in sets for path in self._shards(name)])
        position = {sealed_name(name) if is_sealed else name: number for number, name in enumerate(names)}
        return [data_url(encode_png(pixels[position[name]])) for name in drawn]

    def _shards(self, name: str) -> list[Path]:
        return shards_in(self.results / "images" / name)

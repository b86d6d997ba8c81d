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
        of_samples = self.image_set == "retrained"
        images, others, edit_of = self._samples() if of_samples else self._edits()
        if self.number * self.count > len(images):
            raise DataError(
                f"sheet {self.number} of {self.count} {'samples' if of_samples else 'edited images'}: this run has "
                f"{len(images)}; use a smaller `--count` or `--sheet`{', or increase `retrain.samples`' * of_samples}"
            )
        parts = [
            shuffled[(self.number - 1) * count : self.number * count]
            for shuffled, count in ((images, self.count), (others, round(OTHERS * self.count)))
        ]
        stream = ("audit", *["samples"] * of_samples, self.number)
        names = seeding.numpy_generator(self.config.seed, *stream).permutation(np.concatenate(parts))
        rows = pd.DataFrame({"image_id": list(map(sealed_name, names)) if of_samples else names})
        rows["edit"] = [edit_of.get(name, "") for name in names]
        rows["digest"] = digest_of_set(self.image_set, self._shards(self.image_set))
        return rows.assign(image_set=self.image_set)[list(COLUMNS)]

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

    def _edits(self) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
        """Return edited and unedited images in random order, and by which settings each edited one was edited."""
        path, config = self.results / "labels/dataset_rebalanced.parquet", self.config
        if not path.exists():
            raise DataError(f"{path}: this run has no rebalanced dataset yet; run it first")
        table, random = read_table(path, "assembled"), seeding.numpy_generator(config.seed, "audit")
        names, edited = table["image_id"].to_numpy(), table["edited"].to_numpy(bool)
        images, others = random.permutation(names[edited]), random.permutation(names[~edited])
        plan = read_table(self.results / "plan/dataset.parquet", "plan").set_index("image_id")
        digests = {attribute: config.rebalance.edits_digest(attribute) for attribute in config.rebalance.edited}
        return images, others, plan.loc[images, "attribute"].map(digests).to_dict()

    def _samples(self) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
        """Return samples of the retrained and of the control GAN in random order, and that none was edited."""
        shuffled = []
        for gan in ("retrained", "control"):
            path = self.results / f"scores/referee/{gan}.parquet"
            if not path.exists():
                raise DataError(f"{path}: this run has no samples of a retrained GAN yet; run it first, with `retrain`")
            random = seeding.numpy_generator(self.config.seed, "audit", gan)
            shuffled.append(random.permutation(read_table(path, "scores")["image_id"].to_numpy()))
        return *shuffled, {}

    def _pictures(self, drawn: pd.Series) -> list[str]:
        """Return the URL of each image."""
        is_sealed = self.image_set == "retrained"
        sets = ("retrained", "control") if is_sealed else (self.image_set,)
        names, pixels = read_shards([path for name in sets for path in self._shards(name)])
        position = {sealed_name(name) if is_sealed else name: number for number, name in enumerate(names)}
        return [data_url(encode_png(pixels[position[name]])) for name in drawn]

    def _shards(self, name: str) -> list[Path]:
        return shards_in(self.results / "images" / name)

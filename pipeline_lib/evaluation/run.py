"""A finished run: where its files lie, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline_lib.evaluation.results import Counterfactual, Metrics
from pipeline_lib.runtime.errors import DataError


@dataclass(frozen=True)
class Run:
    """The folder of a run, such as results/avatars, with the paths that `docs/layout.md` promises."""

    folder: Path

    @property
    def provenance(self) -> Path:
        """What made the run, which is written last."""
        return self.folder / "provenance.json"

    @property
    def datasheet(self) -> Path:
        """Card of the rebalanced dataset."""
        return self.folder / "report/datasheet.md"

    @property
    def image_sets(self) -> list[str]:
        """Names of the image sets, sorted."""
        return sorted(path.name for path in (self.folder / "images").glob("*"))

    def images(self, name: str, shards: int) -> list[Path]:
        """Image shards of a set."""
        return [self.folder / f"images/{name}/{number}.parquet" for number in range(shards)]

    def labels(self, name: str, true: bool = False) -> Path:
        """Labels of an image set, or those with the truth of its edits."""
        return self.folder / f"labels/{name}{'_true' * true}.parquet"

    def plan(self, name: str) -> Path:
        """Table of the edits of an image set."""
        return self.folder / f"plan/{name}.parquet"

    def candidates(self, name: str, jobs: int) -> list[Path]:
        """Tables of the candidates of these edits."""
        return [self.folder / f"swaps/{name}/{number}.candidates.parquet" for number in range(jobs)]

    def scores(self, detector: str, name: str) -> Path:
        """A detector's scores of an image set."""
        return self.folder / f"scores/{detector}/{name}.parquet"

    def model(self, name: str) -> Path:
        """Weights of a network, such as `encoder` or `source/generator`."""
        return self.folder / f"models/{name}.safetensors"

    @cached_property
    def metrics(self) -> Metrics:
        """Every figure of the run."""
        return Metrics.read(self.need(self.folder / "evaluation/metrics.json"))

    @cached_property
    def counterfactual(self) -> Counterfactual:
        """What edited avatars show by the closest clean rendering."""
        return Counterfactual.read(self.need(self.folder / "evaluation/counterfactual.json"))

    def need(self, *paths: Path) -> Path:
        """Return the first of these files of the run.

        Raises:
            DataError: one is missing, so the run is not finished.
        """
        for path in paths:
            if not path.is_file():
                missing = path.relative_to(self.folder)
                raise DataError(
                    f"{self.folder}: the run is not finished, it lacks {missing}; run the workflow to its end"
                )
        return paths[0]

"""What is generated: the config reference and the conda environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline_lib.documentation.environment import conda_environment
from pipeline_lib.documentation.reference import config_reference
from pipeline_lib.runtime.files import atomic_path

ROOT = Path(__file__).parents[2]

#: Every generated file, relative to the root of the repository, and what returns its text for that root.
GENERATED: dict[str, Callable[[Path], str]] = {
    "config/README.md": lambda _: config_reference(),
    "envs/pipeline.yaml": conda_environment,
}


def main(folder: Path = ROOT) -> None:
    """Write every generated file of this repository below `folder`."""
    for name, generate in GENERATED.items():
        with atomic_path(folder / name) as beside:
            beside.write_text(generate(ROOT))

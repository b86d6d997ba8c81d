"""What made a run: its config, the installation and digests of its files; and whether this installation is alike."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import pipeline_lib
from pipeline_lib import __version__
from pipeline_lib.config import Config, read_config
from pipeline_lib.config.rebalance import EDITORS
from pipeline_lib.data.shards import open_shard
from pipeline_lib.networks.checkpoints import read_header
from pipeline_lib.runtime.devices import device_pool
from pipeline_lib.runtime.errors import DataError
from pipeline_lib.runtime.files import digest_of, digest_of_files, read_json, write_json
from pipeline_lib.runtime.revisions import stage

FILE, CONFIG = "provenance.json", "config.yaml"
FORM = 3  # of the file; raised when keys change their meaning

CODE = "any step of the workflow"
ROUNDING = "rounding in networks, so trained weights and edited images"
ARITHMETIC = "sums and random draws, so possibly every figure"
#: What another value can change, of what takes part in making images or weights.
PACKAGES = {
    **dict.fromkeys(("torch", "torchvision"), ROUNDING),
    **dict.fromkeys(("numpy", "scipy"), ARITHMETIC),
    "pandas": "the order of rows, so possibly every figure",
    "pillow": "images that are read from files, and the bytes of PNG files",
    "pyarrow": "the bytes of Parquet files, not the values in them",
    "safetensors": "the bytes of weight files, not the values in them",
    **dict.fromkeys(("python-avatars", "resvg-py"), "drawings of avatars"),
    "lpips": "the losses of trainings",
    **dict.fromkeys(("stlpips-pytorch", "torch-fidelity"), "measured distances, and no image"),
    **dict.fromkeys(("transformers", "timm"), "the networks that it holds"),
    "onnxruntime": "the networks that it runs",
    **{package: "the images that it draws" for editor in EDITORS for package in editor.packages},
}
INSTALLATION = {
    **dict.fromkeys(("latent-rebalance", "code"), CODE),
    "python": ARITHMETIC,
    **dict.fromkeys(("system", "processor", "gpu"), ROUNDING),
    **PACKAGES,
}
VECTORS = ("amx", "avx", "bf16", "fma", "i8mm", "neon", "sse", "sve")  # beginnings of names of vector instructions
UNKNOWN = "an unknown stage"  # which made a file that does not name it


@stage(revision=2)
def record_provenance(
    *, settings: dict[str, Any], images: list[Path], models: list[Path], given: list[Path], provenance: Path
) -> None:
    """Write what made the images and weights of a run.

    Args:
        settings: the whole config, with every default, in plain values.
        images: image shards of the run.
        models: weight files of the run.
        given: weights, label tables and other files that the config names.
        provenance: JSON to write, in the folder of the run. Its versions are those of this installation, so it is
            recorded with the last of these files; its stages and their revisions are those that the files name.
    """

    def maker(weights: Path) -> str:
        return read_header(weights).get("made_by", UNKNOWN)

    def own(paths: Sequence[Path]) -> dict[str, str]:
        return {path.relative_to(provenance.parent).as_posix(): digest_of_files(path) for path in paths}

    write_json(
        provenance,
        {
            "form": FORM,
            "config": settings,
            "config_digest": _digest_of_config(settings),
            "installation": describe_installation(),
            "stages": sorted({*map(_maker_of_shard, images), *map(maker, models)}),
            "images": own(images),
            "models": own(models),
            "given": {path.as_posix(): digest_of_files(path) for path in given},
        },
    )


def _maker_of_shard(shard: Path) -> str:
    return (open_shard(shard).schema_arrow.metadata or {}).get(b"made_by", UNKNOWN.encode()).decode()


def describe_installation() -> dict[str, Any]:
    """Return the versions of what takes part in making images and weights, and the features of the processor."""
    return {
        "latent-rebalance": __version__,
        "code": digest_of_files(*sorted(Path(pipeline_lib.__file__).parent.rglob("*.py"))),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_features(),
        "gpu": _gpu(),
        **{name: version for name in PACKAGES if (version := _version(name)) is not None},
    }


def processor_features() -> list[str]:
    """Return the vector instructions by which torch chooses how it computes, such as avx512_f or amx_bf16, sorted."""
    import torch

    if hasattr(torch.cpu, "get_capabilities"):  # not before torch 2.11
        found = torch.cpu.get_capabilities()
        return sorted(name for name, present in found.items() if present is True and name.startswith(VECTORS))
    return [torch.backends.cpu.get_cpu_capability().lower()]


def read_provenance(path: Path) -> dict[str, Any]:
    """Read what made a run.

    Raises:
        DataError: the file is missing, or not of the form that this version writes.
    """
    found = read_json(path)
    if not isinstance(found, dict) or found.get("form") != FORM:
        form = found.get("form") if isinstance(found, dict) else None
        raise DataError(f"{path}: form {form!r}, expected {FORM}; use the version of this library that wrote it")
    return found


def config_of(provenance: Mapping[str, Any]) -> Config:
    """Return the config of a run.

    Raises:
        DataError: it is not valid in this version.
    """
    try:
        return Config.model_validate(provenance["config"])
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise DataError(
            f"{FILE}: its config is not valid in this version, first at `{key}`; run the workflow again, or use the "
            f"version {provenance['installation']['latent-rebalance']} of this library"
        ) from None


def reproduce(export: Path, revisions: Mapping[str, int]) -> tuple[list[str], bool]:
    """Say what made an export, and whether this installation would make the same bytes.

    Paths of given files are those of the config, relative to the working directory.

    Args:
        export: folder written by `export`.
        revisions: revision of each stage in this installation.

    Returns:
        Lines to print, and whether nothing differs.

    Raises:
        DataError: the folder is no export.
    """
    if not (export / FILE).is_file():
        raise DataError(f"{export}: no {FILE}, so this is no export; name a folder that `export` wrote")
    there, here = read_provenance(export / FILE), describe_installation()
    config = there["config"]
    lines = [
        f"Made by the run {config['run']} (seed {config['seed']}) with the config {export / CONFIG}, "
        f"digest {there['config_digest']}.",
    ]
    same, differing = [], []
    for name, before, now, changes in _compared(export, there, here, revisions):
        if before == now:
            same.append(f"same: {name} {_text(before)}")
        else:
            differing.append(f"differs: {name} was {_text(before)}, here {_text(now)}; can change {changes}")
    verdict = "This installation would make the same bytes."
    if differing:
        verdict = f"This installation may make other bytes; {len(differing)} of these points differ."
    lines += [*same, *differing, verdict]
    lines.append(f"Run it again: python -m pipeline_lib run --cores all --configfile {export / CONFIG}")
    lines.append(f"Compare then: `images` and `models` in results/{config['run']}/{FILE} and in {export / FILE}")
    return lines, not differing


def _compared(
    export: Path, there: Mapping[str, Any], here: Mapping[str, Any], revisions: Mapping[str, int]
) -> Iterator[tuple[str, object, object, str]]:
    """Yield name, value then, value now, and what it can change, of everything that can differ."""
    yield "config digest", there["config_digest"], _digest_of_config(read_config(export / CONFIG)), CODE
    for name, before in there["installation"].items():  # a package that was not there has not been used
        yield name, before, here.get(name), INSTALLATION.get(name, CODE)
    for made_by in there["stages"]:
        stage, _, revision = made_by.partition("@")
        yield f"revision of {stage}", revision or None, str(revisions.get(stage, "not there")), "the files that it made"
    for name, digest in there["given"].items():
        yield name, digest, digest_of_files(name) if Path(name).is_file() else None, "everything that is made from it"


def _digest_of_config(values: Mapping[str, Any]) -> str | None:
    """Return the digest of a config with every default of this installation; None if it is not valid here."""
    try:
        return digest_of(Config.model_validate(values).model_dump(mode="json"))
    except ValidationError:
        return None


def _text(value: object) -> str:
    if value is None:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    """Return the kind of GPU that jobs of this process would lease; None if there is none."""
    import torch

    return torch.cuda.get_device_name(0) if device_pool() and torch.cuda.is_available() else None

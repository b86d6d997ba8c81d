"""The command line: it parses, and calls the library."""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib import __version__, runs
from pipeline_lib.config import load_config
from pipeline_lib.config.names import AUDITED
from pipeline_lib.runtime import ranks
from pipeline_lib.runtime.errors import PipelineError
from pipeline_lib.runtime.files import SHIPPED, write_json
from pipeline_lib.stages import STAGES, call_stage, find_stage, revision_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 for success, 1 for a check that failed, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="latent-rebalance", description="Rebalance an image dataset and its GAN.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_commands(commands)
    tools = commands.add_parser("tools", help="weights, single stages, several runs of one recipe, example images")
    _add_tools(tools.add_subparsers(required=True, metavar="tool"))
    options, others = parser.parse_known_args(arguments)
    if others and options.command not in (_run, _demo):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    options.snakemake = others
    # processes started by torchrun write to the log of their parent, where only rank 0 logs
    level = logging.WARNING if ranks.rank() else logging.INFO
    form = "%(message)s" if ranks.launched() else "%(asctime)s %(message)s"
    logging.basicConfig(level=level, format=form, stream=sys.stderr)
    try:
        return options.command(options)
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _add(commands: Any, name: str, command: Callable[..., int], text: str, **more: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", **more)
    parser.set_defaults(command=command)
    return parser


def _add_commands(commands: Any) -> None:
    default = runs.CONFIG if runs.CONFIG.exists() else SHIPPED / runs.CONFIG

    of_snakemake = {"allow_abbrev": False, "usage": "%(prog)s [--seeds N] my.yaml [options of snakemake]"}
    run = _add(commands, "run", _run, "run the workflow, and resume a killed run", **of_snakemake)
    run.add_argument(
        "--seeds", type=int, metavar="N", help="make N runs, <run>-run-1 to N, with other seeds throughout"
    )
    usage = "%(prog)s [options of snakemake]"
    _add(commands, "demo", _demo, "run the default config and write its report", allow_abbrev=False, usage=usage)

    check = _add(commands, "check", _check, "check a config file and its data: images, labels, groups and donors")
    check.add_argument("config", type=Path)
    check.add_argument("--json", action="store_true", help="check the file alone, and print it with every default")

    plan = _add(commands, "plan", _plan, "print which edits the target rates need, and what an audit could show")
    plan.add_argument("--config", type=Path, default=default, help="config of the run")
    plan.add_argument("--failing", type=float, help="share of edits that fail (default: 0.02, or as audited)")
    plan.add_argument("--labels", type=int, default=200, help="audited edits in all (default: 200)")

    audit = _add(commands, "audit", _audit, "draw images of a run, and write a page on which they are labelled by eye")
    audit.add_argument("folder", type=Path, help="folder of the page")
    audit.add_argument("--config", type=Path, default=default, help="config of the run")
    audit.add_argument("--set", default="dataset_rebalanced", choices=AUDITED, help="image set")
    audit.add_argument("--count", type=int, default=200, help="edited images, or retrained samples (default: 200)")
    audit.add_argument("--sheet", type=int, default=1, help="another number draws other images (default: 1)")

    export = _add(commands, "export", _export, "write an image set of a finished run as a folder to publish")
    export.add_argument("results", type=Path, help="results/<run>")
    export.add_argument("name", help="name of the image set, such as dataset_rebalanced")
    export.add_argument("folder", type=Path, help="output folder")
    formats = "imagefolder: PNG files with a table, as Hugging Face datasets (default); webdataset: tar shards"
    export.add_argument("--format", default="imagefolder", choices=("imagefolder", "webdataset"), help=formats)

    compose = _add(commands, "compose", _compose, "edit single images in a local browser page")
    compose.add_argument("--config", type=Path, default=default, help="config with the weights")
    compose.add_argument("--results", type=Path, help="results/<run>, to use its networks")
    compose.add_argument("--images", type=Path, help="folder of images (default: samples of the generator)")
    compose.add_argument("--count", type=int, default=20, help="number of images (default: 20)")
    compose.add_argument("--port", type=int, default=7860, help="port on this machine (default: 7860)")


def _add_tools(tools: Any) -> None:
    bring_in = _add(tools, "import", _import, "convert published weights to a weight file")
    bring_in.add_argument("source", type=Path, help=".pth or .pt, as published")
    bring_in.add_argument("target", type=Path, help="output file, .safetensors")
    bring_in.add_argument("--resolution", type=int, help="resolution of the images; required for encoders into z")

    ship = _add(tools, "ship", _ship, "write half-precision copies of a run's source weights")
    ship.add_argument("results", type=Path, help="results/<run>")
    ship.add_argument("folder", type=Path, help="output folder, such as resources/<name>")

    adapt = _add(tools, "adapt", _adapt, "fine-tune an encoder on one image before editing it")
    adapt.add_argument("encoder", type=Path, help="weight file of the encoder")
    adapt.add_argument("generator", type=Path, help="weight file of its generator")
    adapt.add_argument("image", type=Path, help="image file; a centre crop is used")
    adapt.add_argument("adapted", type=Path, help="output weight file; a picture is written next to it")
    adapt.add_argument("--steps", type=int, default=30, help="steps of Adam (default: 30, as in the paper)")

    stage = _add(tools, "stage", _stage, "run one stage; without values, list its parameters")
    stage.add_argument("name", choices=sorted(STAGES), metavar="name")
    stage.add_argument("values", nargs="*", metavar="NAME=VALUE", help="VALUE is a path, text, or JSON")
    stage.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")
    stage.add_argument("--gpus", type=int, help="GPUs; several for a stage that trains on them (default: one, if any)")

    recipe = _add(tools, "recipe", _recipe, "say what runs with several seeds tell of a further run")
    recipe.add_argument("results", type=Path, nargs="+", help="results/<run> of each, three or more")
    recipe.add_argument("--output", type=Path, help="JSON to write")

    reproduce = _add(tools, "reproduce", _reproduce, "say what made an export, and whether it can be made again here")
    reproduce.add_argument("export", type=Path, help="folder written by `export`")

    photos = _add(tools, "photos", _photos, "draw JPEG files and their labels, to try a config for photographs with")
    photos.add_argument("folder", type=Path)
    photos.add_argument("count", type=int, nargs="?", default=5000, help="number of files (default: 5000)")
    photos.add_argument("--seed", type=int, default=0)

    utkface = _add(tools, "utkface", _utkface, "write the table of the biased subset of UTKFace")
    utkface.add_argument("folder", type=Path, help="folder of UTKFace's aligned and cropped images")
    utkface.add_argument("table", type=Path, help="CSV file to write")
    utkface.add_argument("--bias", choices=["race", "age"], default="race")
    utkface.add_argument("--seed", type=int, default=0)


def _run(options: argparse.Namespace) -> int:
    if options.seeds is None:
        return runs.run_workflow(options.snakemake)
    return runs.run_seeds(options.snakemake, options.seeds)


def _demo(options: argparse.Namespace) -> int:
    return runs.run_demo(options.snakemake)


def _check(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    if options.json:
        print(config.model_dump_json(indent=2))
        return 0
    from pipeline_lib.report.check import print_check

    print_check(config)
    return 0


def _plan(options: argparse.Namespace) -> int:
    from pipeline_lib.audit.forecast import print_forecast

    if not (0 <= (options.failing or 0) <= 1 and options.labels >= 0):
        raise PipelineError("`--failing` is a share from 0 to 1, and `--labels` a number from 0; correct them")
    print_forecast(load_config(options.config), options.failing, options.labels)
    return 0


def _audit(options: argparse.Namespace) -> int:
    from pipeline_lib.audit.sheets import Sheet

    if options.count < 1 or options.sheet < 1:
        raise PipelineError("`--count` and `--sheet` are numbers from 1; correct them")
    config = load_config(options.config)
    sheet = Sheet(config, Path("results") / config.run, options.set, options.count, options.sheet)
    page, count = sheet.write(options.folder)
    plan = ", or as `rebalance.labels` to plan by it" * (options.set == "dataset_rebalanced")
    print(f"{page}: {count} images; label them, save the CSV, and name it in the config as `certify.labels`{plan}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from pipeline_lib.release.export import export

    image_set = export(options.results, options.name, options.folder, options.format)
    splits = ", ".join(f"{len(split):,} images ({split.name})" for split in image_set.splits)
    print(f"{options.folder}: {splits}")
    return 0


def _compose(options: argparse.Namespace) -> int:
    try:
        from pipeline_lib.composer.server import serve
    except ModuleNotFoundError as error:
        raise PipelineError(
            f"the composer needs {error.name}, which is not installed; run: pip install 'latent-rebalance[compose]'"
        ) from None
    import torch

    from pipeline_lib.composer.opening import open_composer
    from pipeline_lib.runtime.devices import lease_device

    config = load_config(options.config)
    with lease_device() as device:
        serve(open_composer(config, options.results, options.images, options.count, torch.device(device)), options.port)
    return 0


def _import(options: argparse.Namespace) -> int:
    from pipeline_lib.networks.checkpoints import import_weights

    network = import_weights(options.source, options.target, options.resolution)
    print(f"{options.target}: {network.architecture}, {json.dumps(network.arguments)}")
    return 0


def _ship(options: argparse.Namespace) -> int:
    from pipeline_lib.networks.checkpoints import ship_weights

    models = options.results / "models"
    files = [models / f"{name}.safetensors" for name in ("source/generator", "source/discriminator", "encoder")]
    if not any(source.is_file() for source in files):
        raise PipelineError(f"{models}: none of the source weights is there; train them first, or correct the path")
    for source in files:
        target = options.folder / source.name
        if not source.is_file():
            print(f"{source}: not in this run, so left out")
            continue
        ship_weights(source, target)
        print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def _adapt(options: argparse.Namespace) -> int:
    import torch

    from pipeline_lib.runtime.devices import lease_device
    from pipeline_lib.training.adapt import adapt_to_file

    with lease_device() as device:
        adapt_to_file(
            encoder=options.encoder,
            generator=options.generator,
            image=options.image,
            adapted=options.adapted,
            device=torch.device(device),
            steps=options.steps,
        )
    print(f"{options.adapted} and {options.adapted.with_suffix('.png')}")
    return 0


def _stage(options: argparse.Namespace) -> int:
    if not options.values:
        stage = find_stage(options.name)
        print(inspect.getdoc(stage), "\n")
        for parameter in inspect.signature(stage).parameters.values():
            print(f"  {parameter}")
        return 0
    call_stage(options.name, dict(_value(text) for text in options.values), options.threads, options.gpus)
    return 0


def _value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise PipelineError(f"`{text}`: write every value as NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _recipe(options: argparse.Namespace) -> int:
    from pipeline_lib.audit.recipe import assess_recipe, print_recipe

    found = assess_recipe(options.results)
    print_recipe(found)
    if options.output:
        write_json(options.output, found.model_dump(mode="json"))
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from pipeline_lib.release.provenance import reproduce

    lines, same = reproduce(options.export, {name: revision_of(name) for name in STAGES})
    print("\n".join(lines))
    return int(not same)


def _photos(options: argparse.Namespace) -> int:
    from pipeline_lib.data.example_photos import write_photos

    table = write_photos(options.folder, options.count, options.seed)
    print(f"{options.count:,} files in {options.folder} and their labels in {table}")
    return 0


def _utkface(options: argparse.Namespace) -> int:
    from pipeline_lib.data.utkface import biased, read_names

    table = biased(read_names(options.folder), options.bias, options.seed)
    table.to_csv(options.table, index=False)
    count = table["split"].value_counts()
    print(f"{options.table}: {count['train']} images to train on, {count['held_out']} held out")
    return 0

"""The command line: check and plan a config, run one stage or the workflow, import weights, export images."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import inspect
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from pipeline_lib import __version__
from pipeline_lib.config import load_config, read_config
from pipeline_lib.config.names import AUDITED
from pipeline_lib.config.reseeding import LABELS, first_difference, reseed, value_of
from pipeline_lib.runtime import ranks
from pipeline_lib.runtime.errors import PipelineError
from pipeline_lib.runtime.files import atomic_path, write_json
from pipeline_lib.stages import STAGES, call_stage, find_stage, revision_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 for success, 1 for a check that failed, 2 for bad input."""
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    if others and options.command is not _run:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="latent-rebalance", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True)

    check = commands.add_parser("check", help="check a config file and its data: images, labels, groups and donors")
    check.add_argument("config", type=Path)
    check.add_argument("--json", action="store_true", help="check the file alone, and print it with every default")
    check.set_defaults(command=_check)

    stage = commands.add_parser("stage", help="run one stage; without values, list its parameters")
    stage.add_argument("name", choices=sorted(STAGES))
    stage.add_argument("values", nargs="*", metavar="NAME=VALUE", help="VALUE is a path, text, or JSON")
    stage.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")
    stage.add_argument("--gpus", type=int, help="GPUs; several for a stage that trains on them (default: one, if any)")
    stage.set_defaults(command=_stage)

    run = commands.add_parser(
        "run", allow_abbrev=False, help="run the workflow and resume a killed run; takes the options of snakemake"
    )
    run.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="make N runs, <run>-run-1 to N, with other seeds throughout",
    )
    run.set_defaults(command=_run)

    recipe = commands.add_parser("recipe", help="say what runs with several seeds tell of a further run")
    recipe.add_argument("results", type=Path, nargs="+", help="results/<run> of each, three or more")
    recipe.add_argument("--output", type=Path, help="JSON to write")
    recipe.set_defaults(command=_recipe)

    ship = commands.add_parser("ship", help="write half-precision copies of a run's source weights")
    ship.add_argument("results", type=Path, help="results/<run>")
    ship.add_argument("folder", type=Path, help="output folder, such as resources/<name>")
    ship.set_defaults(command=_ship)

    bring_in = commands.add_parser("import", help="convert published weights to a weight file")
    bring_in.add_argument("source", type=Path, help=".pth or .pt, as published")
    bring_in.add_argument("target", type=Path, help="output file, .safetensors")
    bring_in.add_argument("--resolution", type=int, help="resolution of the images; required for encoders into z")
    bring_in.set_defaults(command=_import)

    adapt = commands.add_parser("adapt", help="fine-tune an encoder on one image before editing it")
    adapt.add_argument("encoder", type=Path, help="weight file of the encoder")
    adapt.add_argument("generator", type=Path, help="weight file of its generator")
    adapt.add_argument("image", type=Path, help="image file; a centre crop is used")
    adapt.add_argument("adapted", type=Path, help="output weight file; a picture is written next to it")
    adapt.add_argument("--steps", type=int, default=30, help="steps of Adam (default: 30, as in the paper)")
    adapt.set_defaults(command=_adapt)

    plan = commands.add_parser("plan", help="print which edits the target rates need, and what an audit could show")
    plan.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="config of the run")
    plan.add_argument("--failing", type=float, help="share of edits that fail (default: 0.02, or as audited)")
    plan.add_argument("--labels", type=int, default=200, help="audited edits in all (default: 200)")
    plan.set_defaults(command=_plan)

    again = commands.add_parser("replay", help="choose again among a run's candidates by other rules, in seconds")
    again.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="config of the run")
    again.add_argument("--name", default="dataset", choices=("dataset", "samples"), help="image set (default: dataset)")
    again.add_argument("--candidates", type=int, help="number of candidates, at most the run's (default: all)")
    again.add_argument("--choose", choices=("seam", "strongest"), help="rule of the choice (default: the run's)")
    again.add_argument("--threshold", type=float, default=0.5, help="probability that is a success (default: 0.5)")
    again.add_argument("--no-veto", action="store_true", help="take candidates that have left their group too")
    again.set_defaults(command=_replay)

    audit = commands.add_parser(
        "audit", help="draw images of a run, and write a page on which they are labelled by eye"
    )
    audit.add_argument("folder", type=Path, help="folder of the page")
    audit.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="config of the run")
    audit.add_argument(
        "--set", default="dataset_rebalanced", choices=AUDITED, help="image set (default: dataset_rebalanced)"
    )
    audit.add_argument(
        "--count", type=int, default=200, help="number of edited images, or of retrained samples (default: 200)"
    )
    audit.add_argument("--sheet", type=int, default=1, help="another number draws other images (default: 1)")
    audit.set_defaults(command=_audit)

    compose = commands.add_parser("compose", help="edit single images in a local browser page")
    compose.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="config with the weights")
    compose.add_argument("--results", type=Path, help="results/<run>, to use its networks")
    compose.add_argument("--images", type=Path, help="folder of images (default: samples of the generator)")
    compose.add_argument("--count", type=int, default=20, help="number of images (default: 20)")
    compose.add_argument("--port", type=int, default=7860, help="port on this machine (default: 7860)")
    compose.set_defaults(command=_compose)

    export = commands.add_parser("export", help="write an image set of a finished run as a folder to publish")
    export.add_argument("results", type=Path, help="results/<run>")
    export.add_argument("name", help="name of the image set, such as dataset_rebalanced")
    export.add_argument("folder", type=Path, help="output folder")
    export.add_argument(
        "--format",
        default="png",
        choices=("png", "imagefolder", "celeba", "webdataset"),
        help="png: PNG files with labels.csv; imagefolder: for Hugging Face datasets; celeba: CelebA's layout; "
        "webdataset: tar shards (default: png)",
    )
    export.set_defaults(command=_export)

    reproduce = commands.add_parser(
        "reproduce", help="say what made an export, and whether this installation would make the same bytes"
    )
    reproduce.add_argument("export", type=Path, help="folder written by `export`")
    reproduce.set_defaults(command=_reproduce)

    tools = commands.add_parser("tools", help="tools beside the workflow").add_subparsers(required=True)
    photos = tools.add_parser("photos", help="draw JPEG files and their labels, to try a config for photographs with")
    photos.add_argument("folder", type=Path)
    photos.add_argument("count", type=int, nargs="?", default=5000, help="number of files (default: 5000)")
    photos.add_argument("--seed", type=int, default=0)
    photos.set_defaults(command=_photos)

    utkface = tools.add_parser("utkface", help="write the table of the biased subset of UTKFace")
    utkface.add_argument("folder", type=Path, help="folder of UTKFace's aligned and cropped images")
    utkface.add_argument("table", type=Path, help="CSV file to write")
    utkface.add_argument("--bias", choices=["race", "age"], default="race")
    utkface.add_argument("--seed", type=int, default=0)
    utkface.set_defaults(command=_utkface)
    return parser


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


def _check(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    if options.json:
        print(config.model_dump_json(indent=2))
        return 0
    from pipeline_lib.report.check import print_check

    print_check(config)
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


def _run(options: argparse.Namespace) -> int:
    return _run_snakemake(options.snakemake) if options.seeds is None else _run_seeds(options.snakemake, options.seeds)


def _run_seeds(arguments: Sequence[str], count: int) -> int:
    """Run the workflow once for each seed; a run that fails is the last."""
    if count < 1:
        raise PipelineError("`--seeds` is a number of runs from 1; correct it")
    given = _snakemake_options(arguments)
    folder = given.directory or Path()
    paths = given.configfile or [folder / "config/config.yaml"]
    if len(paths) > 1:
        raise PipelineError(
            f"`--seeds` takes one --configfile, and found {', '.join(map(str, paths))}; merge them, or name rules first"
        )
    if given.config:
        raise PipelineError(
            "`--seeds` takes no --config, since every run has a config of its own; write it in the file"
        )
    configs = _write_configs(paths[0], folder, count)
    end = arguments.index("--") if "--" in arguments else len(arguments)  # of the options; the last config counts
    for config in configs:
        if status := _run_snakemake([*arguments[:end], "--configfile", str(config.resolve()), *arguments[end:]]):
            return status
    if len(configs) >= 3 and not given.dryrun:
        folders = " ".join(str(config.parent) for config in configs)
        print(f"What they tell of a further run: python -m pipeline_lib recipe {folders}")
    return 0


def _write_configs(path: Path, folder: Path, count: int) -> list[Path]:
    """Write the config of each of several runs of a recipe; one that is there stays, with the labels that it names."""
    path = path.resolve()
    with contextlib.chdir(folder):
        config = load_config(path)
    given = config.model_dump()
    for key in LABELS:
        if value_of(given, key):
            raise PipelineError(
                f"{path}: `{key}` are labels of one run's images; leave it out, and name them in the config of that run"
            )
    written = []
    for seed in range(1, count + 1):
        values = reseed(config, seed)
        own = folder / "results" / values["run"] / "config.yaml"
        if own.is_file():
            if key := first_difference(values, read_config(own)):
                raise PipelineError(
                    f"{own}: `{key}` is not as in {path}; remove that folder, or give `run` another name"
                )
        else:
            with atomic_path(own) as beside:
                beside.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        written.append(own)
    return written


def _run_snakemake(arguments: Sequence[str]) -> int:
    """Run Snakemake, once its config files are known to hold no code and the lock of a killed run is cleared.

    Snakemake's own lock outlives a kill. Another one, which the kernel frees, is held for as long as Snakemake lives,
    and its file is not empty until Snakemake has ended by itself.
    """
    given = _snakemake_options(arguments)
    folder = given.directory or Path()
    for path in given.configfile or filter(Path.exists, [folder / "config/config.yaml"]):
        read_config(path)
    command = [sys.executable, "-m", "snakemake", *arguments]
    own = folder / ".snakemake"
    own.mkdir(parents=True, exist_ok=True)
    with (own / "latent-rebalance.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError(
                f"the workflow is already running in {folder.resolve()}; wait for it or stop it"
            ) from None
        lock.seek(0)
        if lock.read() and any((own / "locks").glob("*.lock")) and not _runs_snakemake(folder):
            logging.info("an earlier run was killed; resuming it")
            # what keeps it from unlocking keeps it from running, and is said then
            subprocess.run([*command, "--unlock"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lock.truncate(0)
        lock.write("running\n")
        lock.flush()
        status = subprocess.run(command, check=False, pass_fds=[lock.fileno()]).returncode
        if status >= 0:
            lock.truncate(0)
        return status


def _snakemake_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read Snakemake's options as it does itself, those of profiles included."""
    from snakemake.cli import parse_args
    from snakemake.exceptions import CliException, WorkflowError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse_args(list(arguments))[1]
    except SystemExit:
        sys.stderr.write(said.getvalue())
        raise
    except (CliException, WorkflowError) as error:
        raise PipelineError(" ".join(str(error).split())) from None


def _runs_snakemake(folder: Path) -> bool:
    """Tell whether a Snakemake lives in a folder, or may live there: of another user's it cannot be seen where.

    It is known by its name, or, within another program, by its log in the folder.
    """
    folder = folder.resolve()
    for process in psutil.process_iter(["cwd", "cmdline", "open_files"]):
        found = process.info
        named = "snakemake" in {Path(word).name for word in found["cmdline"] or []}
        if named and found["cwd"] in (str(folder), None):
            return True
        if any(Path(file.path).parent == folder / ".snakemake/log" for file in found["open_files"] or []):
            return True
    return False


def _recipe(options: argparse.Namespace) -> int:
    from pipeline_lib.audit.recipe import assess_recipe, print_recipe

    found = assess_recipe(options.results)
    print_recipe(found)
    if options.output:
        write_json(options.output, found.model_dump(mode="json"))
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


def _import(options: argparse.Namespace) -> int:
    from pipeline_lib.networks.checkpoints import import_weights

    network = import_weights(options.source, options.target, options.resolution)
    print(f"{options.target}: {network.architecture}, {json.dumps(network.arguments)}")
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


def _plan(options: argparse.Namespace) -> int:
    from pipeline_lib.audit.forecast import print_forecast

    if not (0 <= (options.failing or 0) <= 1 and options.labels >= 0):
        raise PipelineError("`--failing` is a share from 0 to 1, and `--labels` a number from 0; correct them")
    print_forecast(load_config(options.config), options.failing, options.labels)
    return 0


def _replay(options: argparse.Namespace) -> int:
    from pipeline_lib.editing.replay import replay, yields_of

    if not 0 < options.threshold < 1:
        raise PipelineError("`--threshold` is a probability between 0 and 1; correct it")
    config = load_config(options.config)
    settings = config.rebalance
    results = Path("results") / config.run
    chosen = replay(
        results,
        options.name,
        settings,
        candidates=options.candidates,
        choose=options.choose,
        threshold=options.threshold,
        veto=not options.no_veto,
    )
    table = yields_of(results, options.name, settings, chosen, config.evaluate.judge_candidates)
    print(table.to_string(index=False, float_format="{:.3f}".format))
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


def _export(options: argparse.Namespace) -> int:
    from pipeline_lib.release.export import export

    image_set = export(options.results, options.name, options.folder, options.format)
    splits = ", ".join(f"{len(split):,} images ({split.name})" for split in image_set.splits)
    print(f"{options.folder}: {splits}")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from pipeline_lib.release.provenance import reproduce

    lines, same = reproduce(options.export, {name: revision_of(name) for name in STAGES})
    print("\n".join(lines))
    return int(not same)

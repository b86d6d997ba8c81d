"""Generated files are up to date, and pages name files, commands and keys that there are."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from pipeline_lib.config import Config
from pipeline_lib.documentation import GENERATED, ROOT, main
from pipeline_lib.documentation.environment import conda_environment
from pipeline_lib.documentation.reference import ORDER, config_reference


def test_what_make_docs_writes_is_up_to_date(tmp_path: Path) -> None:
    main(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(GENERATED)
    for name in GENERATED:
        assert (ROOT / name).read_text() == (tmp_path / name).read_text(), f"{name} is out of date; run `make docs`"


def expanded(pattern: str) -> Iterator[str]:
    """Yield what a pattern such as `{a,b}/{c,d}.json` stands for."""
    parts = re.split(r"[{}]", pattern)  # every second one lists names
    yield from map("".join, product(*(part.split(",") for part in parts)))


def test_the_layout_has_a_row_for_each_file_of_the_default_config() -> None:
    """A test of the workflow compares the same table with what a run has left."""
    command = [sys.executable, "-m", "snakemake", "--summary"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    jobs = csv.DictReader(done.stdout.splitlines(), delimiter="\t")
    made = {(job["output_file"].split("/", 2)[2], job["rule"]) for job in jobs}
    table = (ROOT / "docs/layout.md").read_text().partition("## What else is there")[0]
    rows = re.findall(r"^\| `(.+?)` \| .+ \| `(\w+)` \|$", table, re.MULTILINE)
    documented = {(path, rule) for row, rule in rows for path in expanded(row.replace("{shard}", "{0,1}"))}
    assert not made ^ documented, f"docs/layout.md: missing {made - documented}; too much {documented - made}"


def test_pages_that_code_and_configs_name_exist() -> None:
    """Links between pages are checked by the build of the site, `make lint`."""
    folders = ("pipeline_lib", "workflow", "config", "experiments", "benchmarks", "profiles", "tests")
    files = [
        path for folder in folders for path in (ROOT / folder).rglob("*.*") if path.suffix in (".py", ".smk", ".yaml")
    ]
    named = {page for path in files for page in re.findall(r"\bdocs/[\w-]+\.md", path.read_text())}
    assert named and not [page for page in named if not (ROOT / page).exists()]


def test_every_command_is_described() -> None:
    described = re.findall(r"^\| `((?:tools )?\w+)", (ROOT / "docs/commands.md").read_text(), re.MULTILINE)
    listed = []
    for prefix in ((), ("tools",)):
        command = [sys.executable, "-m", "pipeline_lib", *prefix, "--help"]
        text = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        listed += [" ".join((*prefix, name)) for name in re.findall(r"^    (\w+)", text, re.MULTILINE)]
    assert sorted(described) == sorted(set(listed) - {"tools"})


def sections() -> list[tuple[str, dict[str, Any]]]:
    whole = Config.model_json_schema()
    return [("Config", whole), *whole["$defs"].items()]


@pytest.mark.parametrize(("name", "section"), sections())
def test_every_key_is_described(name: str, section: dict[str, Any]) -> None:
    bare = [key for key, node in section["properties"].items() if not node.get("description")]
    assert not bare, f"{name} has keys without a description: {bare}"


def test_the_reference_has_every_key_of_the_config_with_its_range_default_and_kind() -> None:
    reference = config_reference()
    documented = set(re.findall(r"^\| `([\w.]+)`", reference, re.MULTILINE)) | set(
        re.findall(r"^## `(\w+)`", reference, re.MULTILINE)
    )
    named = {part for key in documented for part in key.split(".")} | {"kind", "reader", "backend"}
    assert not {key for _, section in sections() for key in section["properties"]} - named
    assert "| `confidence` | number > 0 and < 1 | `0.95` |" in reference
    assert "| `targets.rate` | number ≥ 0 and ≤ 1 |  |" in reference
    assert "| `edit.region.top` [box] | number ≥ 0 and ≤ 1 | `0.65` |" in reference
    assert "| `referee` | as `detectors.selector` | `{width: 16}` |" in reference
    assert "| `masks` [folder] | folder or `null` |" in reference


def documented_keys() -> set[str]:
    keys, section = set(), ""
    for heading, key in re.findall(r"^(?:## `(\w+)`|\| `([\w.]+)`)", config_reference(), re.MULTILINE):
        section = f"{heading}." if heading else section
        keys.add(heading or section + key)
    return keys


def keys_below(node: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted path of every key of a config; a list stands for its items."""
    for item in node if isinstance(node, list) else ():
        yield from keys_below(item, path)
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{path}{key}"
        yield from keys_below(value, f"{path}{key}.")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_pages_name_no_key_that_the_config_lacks(page: Path) -> None:
    keys, text = documented_keys(), page.read_text()
    named = set(re.findall(rf"`((?:{'|'.join(ORDER)})\.[a-z_.]+)[`:]", text))
    for block in re.findall(r"^ *```yaml\n(.*?)```", text, re.MULTILINE | re.DOTALL):
        named |= set(keys_below(yaml.safe_load(block)))
    sections = {key.rpartition(".")[0] for key in keys} - {""}  # whose keys are listed
    kinds = ("reader", "kind", "backend")
    assert not {key for key in named - keys if key.rpartition(".")[0] in sections and not key.endswith(kinds)}


def test_the_environment_holds_the_direct_dependencies_alone() -> None:
    pins = yaml.safe_load(conda_environment(ROOT))["dependencies"][-1]["pip"]
    names = {Requirement(pin).name for pin in pins}
    assert {"torch", "snakemake", "pyyaml"} <= names
    assert not names & {"pytest", "docutils"}
    assert all(str(Requirement(pin).specifier).startswith("==") for pin in pins)


def test_every_locked_version_satisfies_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            locked[name] = version
    extras = project["optional-dependencies"]
    wanted = [Requirement(line) for line in project["dependencies"] + extras["dev"]]
    (own,) = (requirement for requirement in wanted if requirement.name == project["name"])
    wanted.remove(own)  # it takes in other extras
    wanted += [Requirement(line) for extra in own.extras for line in extras[extra]]
    for requirement in wanted:
        assert locked[requirement.name.lower()] in requirement.specifier


@pytest.mark.parametrize("module", ["config", "documentation", "runtime.devices", "runtime.files", "data.tables"])
def test_what_the_workflow_parses_loads_neither_torch_nor_snakemake(module: str) -> None:
    script = f"import sys, pipeline_lib.{module}; sys.exit(not {{'torch', 'snakemake'}}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_workflow_catalog_finds_what_it_asks_for() -> None:
    """The keys and files that the catalog documents for standardized usage."""
    (usage,) = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text()).values()
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["mandatory-flags"].keys() == {"desc", "flags"}
    deployment = usage["software-stack-deployment"]
    assert deployment.keys() == {"conda", "apptainer", "apptainer+conda", "report"}
    assert all(isinstance(value, bool) for value in deployment.values())
    assert (ROOT / "workflow/Snakefile").exists()
    assert (ROOT / "config/README.md").exists()

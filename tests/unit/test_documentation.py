"""Generated files are those that the code would generate now."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from pipeline_lib.documentation import ROOT, conda_environment, config_reference, generated_files, main, schema
from pipeline_lib.runtime.errors import ConfigError


@pytest.mark.parametrize("name", ["config/README.md", "envs/pipeline.yaml", "workflow/schemas/config.schema.json"])
def test_a_generated_file_is_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text() == generated_files()[name], f"{name} is out of date; run `make docs`"


def test_every_environment_and_schema_is_generated() -> None:
    kept = [path for folder in ("envs", "workflow/schemas") for path in (ROOT / folder).iterdir()]
    assert {str(path.relative_to(ROOT)) for path in kept} == generated_files().keys() - {"config/README.md"}


def test_make_docs_writes_every_generated_file(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    main(tmp_path)
    assert {name: (tmp_path / name).read_text() for name in generated_files()} == generated_files()


def sections() -> list[tuple[str, dict[str, Any]]]:
    whole = schema()
    return [("Config", whole), *whole["$defs"].items()]


@pytest.mark.parametrize(("name", "section"), sections())
def test_every_key_is_described(name: str, section: dict[str, Any]) -> None:
    bare = [key for key, node in section["properties"].items() if not node.get("description")]
    assert not bare, f"{name} has keys without a description: {bare}"


def test_the_reference_has_a_row_for_every_key_of_the_config() -> None:
    rows = [line.split(" | ") for line in config_reference().splitlines() if line.startswith("| `")]
    documented = sorted(row[0].strip("| `") for row in rows)
    assert documented == sorted(key for _, section in sections() for key in section["properties"])


def test_the_reference_shows_ranges_and_defaults() -> None:
    reference = config_reference()
    assert "| `confidence` | number > 0 and < 1 | `0.95` |" in reference
    assert "| `rate` | number ≥ 0 and ≤ 1 |  |" in reference
    assert "| `shards` | integer ≥ 1 | `2` |" in reference
    assert "`detectors.selector`, `detectors.referee`" in reference


def test_the_schema_takes_the_default_config_and_no_unknown_key() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    values = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    validator.check_schema(schema())
    validator.validate(values)
    values["rebalance"]["candidate"] = 8
    with pytest.raises(jsonschema.ValidationError, match="candidate"):
        validator.validate(values)


def test_the_environment_holds_the_direct_dependencies_alone() -> None:
    pins = yaml.safe_load(conda_environment())["dependencies"][-1]["pip"]
    names = {Requirement(pin).name for pin in pins}
    assert {"torch", "snakemake", "pyyaml"} <= names
    assert not names & {"pytest", "jinja2"}
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


def test_a_dependency_without_a_locked_version_is_named(tmp_path: Path) -> None:
    project = '[project]\nname = "x"\nrequires-python = ">=3.11"\ndependencies = ["rich"]\n'
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "requirements.lock").write_text("# nothing\n")
    with pytest.raises(ConfigError, match=r"requirements.lock: no version of rich"):
        conda_environment(tmp_path)


@pytest.mark.parametrize(
    "module", ["config", "documentation", "runtime.devices", "runtime.files", "runtime.seeding", "data.tables"]
)
def test_what_the_workflow_parses_loads_no_torch(module: str) -> None:
    script = f"import sys, pipeline_lib.{module}; sys.exit('torch' in sys.modules)"
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

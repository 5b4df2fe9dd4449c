"""Promises about the repository as a whole."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
PINS = {
    line.split("==")[0].lower().replace("_", "-"): line.split("==")[1]
    for line in (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines()
    if "==" in line
}


def test_torchvision_stays_out_of_the_tree() -> None:
    assert "torchvision" not in PINS
    assert PINS["torch"] == "2.13.0"
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("torchvision")
    for source in SOURCES:
        text = source.read_text(encoding="utf8")
        assert not re.search(r"^\s*(import|from) torchvision|import_module\(.torchvision", text, re.MULTILINE), source


def test_every_requirement_is_pinned_to_a_version_that_it_accepts() -> None:
    project = PROJECT["project"]
    listed = project["dependencies"] + [text for extra in project["optional-dependencies"].values() for text in extra]
    for text in listed:
        requirement = Requirement(text.split(" #")[0])
        pin = PINS[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(pin), text


@pytest.mark.parametrize(
    "module", ["ornstein", "ornstein.core", "ornstein.assets", "ornstein.simulation", "ornstein.report", "ornstein.cli"]
)
def test_light_modules_import_without_torch(module: str) -> None:
    code = f"import sys, {module}; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_pickled() -> None:
    """A torch file is read in one place, for weights that others trained, and what would run in it is not."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names} | {(getattr(node, "module", None) or "").split(".")[0]}
                assert not names & {"pickle", "cloudpickle", "joblib", "dill", "shelve"}, source
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert node.attr != "save", source
                assert node.attr != "load" or source.name == "weight_files.py", source
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), source


def test_files_stay_readable() -> None:
    for source in SOURCES:
        assert len(source.read_text(encoding="utf8").splitlines()) <= 400, source
        assert source.stem not in ("utils", "helpers", "common", "misc"), source


def test_the_global_random_state_is_left_alone() -> None:
    pattern = re.compile(r"\b(torch\.manual_seed|np\.random\.(seed|rand|randn|randint)|random\.seed)\(")
    for source in SOURCES:
        assert not pattern.search(source.read_text(encoding="utf8")), source


def test_every_folder_has_its_layer() -> None:
    layers = " ".join(PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]).replace("|", " ").split()
    package = ROOT / "src" / "ornstein"
    folders = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__", "__main__"}
    assert {layer.removeprefix("ornstein.") for layer in layers} == folders


def test_licences_are_in_place() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf8")
    notice = (ROOT / "NOTICE").read_text(encoding="utf8")
    assert "All emojis designed by OpenMoji" in notice
    assert "CC BY-SA 4.0" in notice


def test_ci_runs_what_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    assert "make demo" in readme
    assert "make test" in readme
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf8")


def test_shipped_weights_fit_in_git() -> None:
    files = [path for path in (ROOT / "src" / "ornstein" / "checkpoints").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60_000_000
    for config in (ROOT / "src" / "ornstein" / "checkpoints").glob("*/config.json"):
        assert (config.parent / "card.md").exists()

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ornstein


def _run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["ornstein", "ornstein.core", "ornstein.hub", "ornstein.core.progress"])
def test_it_imports_without_torch(module: str) -> None:
    assert _run(f"import sys, {module}; print('torch' in sys.modules or 'rich' in sys.modules)") == "False"


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import sys; before = set(sys.modules); import ornstein; print(sorted(set(sys.modules) - before))"
    loaded = _run(program)
    assert "numpy" not in loaded
    assert "ornstein.core" not in loaded


def test_folders_are_there_when_named() -> None:
    assert _run("import ornstein; print(ornstein.core.OrnsteinError.__name__)") == "OrnsteinError"
    assert {"load", "core", "training", "__version__"} <= set(dir(ornstein))


def test_load_is_the_hubs() -> None:
    from ornstein.hub import load

    assert ornstein.load is load


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ornstein' has no attribute 'laod'"):
        _ = ornstein.laod
    assert not hasattr(ornstein, "nothing")


def test_every_listed_folder_exists() -> None:
    package = Path(ornstein.__file__).parent
    assert [name for name in ornstein._FOLDERS if not (package / name / "__init__.py").exists()] == []


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project.get("version", ornstein.__version__) == ornstein.__version__

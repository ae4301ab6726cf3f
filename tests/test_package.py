"""The package as it is installed: metadata, what it imports, what its wheel holds."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import fxpullback

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("onnx", "onnx_ir", "onnxscript", "onnxruntime", "timm", "torchvision", "PIL", "rich", "typer", "safetensors")


def _run(code: str, cwd: Path) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_version_is_that_of_the_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert fxpullback.__version__ == importlib.metadata.version("fxpullback") == project["version"]


def test_compiler_needs_torch_and_nothing_else(tmp_path: Path) -> None:
    code = f"import sys, json, fxpullback; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    before = json.loads(_run(code.replace("fxpullback", "torch"), tmp_path))
    assert json.loads(_run(code, tmp_path)) == before == []


def test_a_session_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys; from fxpullback.export import Result, Session, tensorrt; print('torch' in sys.modules)"
    assert _run(code, tmp_path).strip() == "False"


def test_export_is_importable_outside_the_tree(tmp_path: Path) -> None:
    where = _run("import fxpullback.export as e; print(e.__name__, e.__file__)", tmp_path).split()
    assert where[0] == "fxpullback.export"
    assert Path(where[1]).name == "__init__.py"


def test_every_package_of_both_trees_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = [
        p.parent.relative_to(ROOT) for tree in ("fxpullback", "export") for p in (ROOT / tree).rglob("__init__.py")
    ]
    names = {".".join(folder.parts).replace("export", "fxpullback.export", 1) for folder in folders}
    assert names == set(listed)


@pytest.mark.parametrize(
    ("sys_platform", "platform_machine", "expected"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
        ("darwin", "x86_64", "onnxruntime"),
        ("win32", "ARM64", "onnxruntime"),
    ],
)
def test_exactly_one_runtime_per_platform(sys_platform: str, platform_machine: str, expected: str) -> None:
    here = {"sys_platform": sys_platform, "platform_machine": platform_machine, "extra": ""}
    wanted = [Requirement(line) for line in importlib.metadata.requires("fxpullback") or []]
    chosen = [r.name for r in wanted if r.marker is None or r.marker.evaluate(here)]
    assert [name for name in chosen if name.startswith("onnxruntime")] == [expected]


def test_wheel_holds_both_trees_and_the_assets(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "fxpullback", "export"):
        (tree / name).symlink_to(ROOT / name)
    # Without isolation, so that the test needs no network: setuptools is there wherever the editable install was made.
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=tree,
        env=os.environ | {"PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {f"fxpullback/{p.relative_to(ROOT / 'fxpullback')}" for p in (ROOT / "fxpullback").rglob("*.py")}
    sources |= {f"fxpullback/export/{p.relative_to(ROOT / 'export')}" for p in (ROOT / "export").rglob("*.py")}
    sources |= {f"fxpullback/export/assets/{p.name}" for p in (ROOT / "export" / "assets").glob("*.*")}
    assert sources | {"fxpullback/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests/", "examples/", "export/"))]

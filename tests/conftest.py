"""Fixtures for all tests.

`zoo` and `fixtures_module` come from a folder of real weights and stored pullbacks that is not part of the project:
`../shared` beside the repository, or the folder that FXPULLBACK_SHARED names. Tests that ask for them skip where it is
absent.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("FXPULLBACK_SHARED") or ROOT.parent / "shared").resolve()


def _from_shared(name: str) -> ModuleType:
    if not (SHARED / f"{name}.py").is_file():
        pytest.skip(f"{name}.py is not in {SHARED}: real weights and stored pullbacks are not part of the project")
    if str(SHARED) not in sys.path:
        sys.path.append(str(SHARED))
    return importlib.import_module(name)


@pytest.fixture(scope="session")
def zoo() -> ModuleType:
    """Networks with real pretrained weights, and pictures for them."""
    return _from_shared("zoo")


@pytest.fixture(scope="session")
def fixtures_module() -> ModuleType:
    """Pullbacks computed by the authors' own code."""
    return _from_shared("fixtures")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the golden graphs anew")


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written, not compared with."""
    return bool(request.config.getoption("--regenerate"))

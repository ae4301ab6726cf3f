"""Fixtures for all tests.

`zoo` and `fixtures_module` come from a folder of real weights and stored pullbacks that is not part of the project:
`../shared` beside the repository, or the folder that FXPULLBACK_SHARED names. Tests that ask for them skip where it is
absent.

Tests may run in any order and in several processes, of which `make test` starts two and gives each whole files. Every
test begins with the same random numbers. What several tests compile is kept for all of a process, in functions with
`functools.cache`.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

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


def pytest_configure(config: pytest.Config) -> None:
    """One thread of torch in each of several processes: they share the cores."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Leave the modules, which live to the end, out of garbage collection: it took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def pytest_unconfigure() -> None:
    """Let go of them in the end: libraries that look for leaks then report every function of theirs."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """A test that draws without a seed of its own draws the same, whichever tests ran before it."""
    torch.manual_seed(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write the golden graphs anew")


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written, not compared with."""
    return bool(request.config.getoption("--regenerate"))

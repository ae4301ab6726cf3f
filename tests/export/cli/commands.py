"""How the tests call the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from typer.testing import CliRunner

from fxpullback.export.cli.app import app


def run(*arguments: Any, code: int = 0) -> tuple[str, str]:
    """stdout and stderr of one command, with the exit code checked."""
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    assert result.exit_code == code, (
        f"exit code {result.exit_code}\n{result.stdout}\n{result.stderr}\n{result.exception}"
    )
    assert "Traceback" not in result.output
    return result.stdout, " ".join(result.stderr.split())


def width_of(path: str | Path) -> int:
    with Image.open(path) as drawn:
        return drawn.width

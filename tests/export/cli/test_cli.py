"""The command line on hand-made files: what holds of every command."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from fxpullback.contract.errors import ExportError
from fxpullback.export.cli import inspect as cli_inspect
from fxpullback.export.cli import terminal
from fxpullback.export.cli.app import app
from tests.export import handmade
from tests.export.cli.commands import run


def test_files_that_are_not_ours(file: Path, picture: Path) -> None:
    whole = file.read_bytes()
    Path("cut.onnx").write_bytes(whole[: len(whole) // 2])
    foreign = handmade.model()
    del foreign.metadata_props[:]
    onnx.save(foreign, "foreign.onnx")
    for command in (["explain", "FILE", picture], ["inspect", "FILE"], ["verify", "FILE"]):
        for name, words in (
            ("cut.onnx", "truncated"),
            ("foreign.onnx", "not written by fxpullback"),
            ("absent.onnx", "there is no such file"),
            (picture, "no whole ONNX file"),
        ):
            _, said = run(*(name if item == "FILE" else item for item in command), code=1)
            assert words in said, (command, name, said)
            assert "error: " in said


def test_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ExportError, match=r"cannot be written \(Permission denied\)\. Name another with -o"):
        terminal.check_output(tmp_path / "net.onnx")


def test_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.write_text("before")

    class Broken:
        def save(self, name: str) -> None:
            Path(name).write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        terminal.save_picture(Broken(), path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(app, ["--debug", "inspect", "absent.onnx"])
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_bugs_are_called_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(cli_inspect, "run", bug)
    _, said = run("inspect", file, code=1)
    assert "unexpected, and a bug of fxpullback: KeyError: 'surprise'" in said


@pytest.mark.parametrize("command", ["compile", "explain", "inspect", "verify", "demo"])
def test_help(command: str) -> None:
    printed, _ = run(command, "--help")
    assert "Usage: " in printed

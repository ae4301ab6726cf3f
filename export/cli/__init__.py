"""The command `fxpullback`: one file for each of its commands."""

from fxpullback.export.cli.app import app, main

__all__ = ["app", "main"]

"""The time of compiling an encoder is measured to the end: the file is there, and certified."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.text.compiling import encoder, seconds
from fxpullback.export import Session

pytest.importorskip("transformers", reason="the encoder is one of transformers")


@pytest.mark.filterwarnings("ignore")
def test_the_time_is_that_of_a_certified_file(tmp_path: Path) -> None:
    compiled, whole = seconds(encoder(16, layers=1), tmp_path)
    assert 0 < compiled < whole
    certificate = Session(tmp_path / "model.onnx").certificate
    assert certificate is not None
    assert certificate["passed"]

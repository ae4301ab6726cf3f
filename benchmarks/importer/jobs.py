"""All files there are to measure, by name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.importer.files import Job
from benchmarks.importer.folder import folder_jobs
from benchmarks.importer.light import LIGHT, light
from benchmarks.importer.timm_networks import TIMM, exported


def jobs(folder: Path | None = None) -> dict[str, Job]:
    """The files by `group/name`: those of a folder, or the architectures of onnx and the networks of timm."""
    if folder is not None:
        found = [*folder_jobs(folder)]
    else:
        found = [Job("light", name, "onnx.backend.test", partial(light, name)) for name in LIGHT]
        for i, (name, options) in enumerate(TIMM):
            how = ("torch.onnx script", "torch.onnx dynamo")[i % 2]
            found.append(Job("timm", name, how, partial(exported, name, options, how)))
    return {f"{job.group}/{job.name}": job for job in found}

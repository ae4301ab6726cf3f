"""All files there are to measure, by name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.importer.files import Job
from benchmarks.importer.folder import folder_jobs
from benchmarks.importer.light import LIGHT, light
from benchmarks.importer.timm_networks import EXPORTERS, FIXED, TIMM, exported


def jobs(folder: Path | None = None) -> dict[str, Job]:
    """The files by `group/name`: those of a folder, or the architectures of onnx and the networks of timm."""
    if folder is not None:
        found = [*folder_jobs(folder)]
    else:
        found = [Job("light", name, "onnx.backend.test", partial(light, name)) for name in LIGHT]
        for name, side, options in TIMM:
            for how in EXPORTERS if name in FIXED else ("script", "dynamo"):
                make = partial(exported, name, side, options, how)
                found.append(Job("timm", f"{name}.{how}", EXPORTERS[how], make))
    return {f"{job.group}/{job.name}": job for job in found}

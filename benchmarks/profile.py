"""Where ONNX Runtime spends its time in one file, by operator."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from fxpullback.export.runtime.onnx_file import cpu_options

RUNS = 5


def profile(file: Path, feed: Mapping[str, Any]) -> tuple[Counter[str], Counter[str]]:
    """Run a file under ONNX Runtime's profiler.

    Args:
        file: an ONNX file.
        feed: its inputs by name.

    Returns:
        Milliseconds of one run by kind of operator, and by node.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = cpu_options()
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        session = ort.InferenceSession(os.fspath(file), options, providers=["CPUExecutionProvider"])
        for _ in range(RUNS + 1):
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    kinds: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    begun = [e["ts"] for e in events if e.get("name") == "model_run"]
    first = sorted(begun)[1]  # the first run sets buffers up
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= first:
            kinds[event["args"]["op_name"]] += event["dur"]
            nodes[event["name"].removesuffix("_kernel_time")] += event["dur"]
    scale = 1000 * RUNS
    return Counter({k: v / scale for k, v in kinds.items()}), Counter({k: v / scale for k, v in nodes.items()})


def told(file: Path, feed: Mapping[str, Any], most: int = 10) -> str:
    """The costliest kinds of operator and the costliest nodes, as text."""
    kinds, nodes = profile(file, feed)
    total = sum(kinds.values())
    lines = [f"{total:.1f} ms in all"]
    for title, counted in (("by operator", kinds), ("by node", nodes)):
        lines += [
            f"{title}:",
            *(f"  {ms:8.2f} ms  {ms / total:6.1%}  {name}" for name, ms in counted.most_common(most)),
        ]
    return "\n".join(lines)

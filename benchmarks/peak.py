"""The most memory that an ONNX Runtime session of one file takes: `python -m benchmarks.peak FILE BATCH`.

A process of its own. Imports nothing but numpy and ONNX Runtime, so that what is counted is the session.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

RUNS = 3


def peak_mb(file: Path, batch: int) -> float:
    """Most memory, in 10^6 bytes, that loading `file` and running it on `batch` samples adds to an idle process."""
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "benchmarks.peak", str(file), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    return float(done.stdout)


def _held_mb() -> float:
    """Most memory this program has held; what the system counts for the process includes its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main(file: str, batch: int) -> None:
    """Print the memory of `file` at `batch`."""
    import numpy as np
    import onnxruntime as ort

    before = _held_mb()
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as fxpullback's own sessions have it
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {}
    for given in session.get_inputs():
        shape = [batch, *given.shape[1:]]
        feed[given.name] = np.zeros(shape, np.float32 if given.type == "tensor(float)" else np.int64)
    for _ in range(RUNS):
        session.run(None, feed)
    print(f"{_held_mb() - before:.1f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""Sweep over the networks of timm and torchvision: what compiles, how well it is certified, what it costs.

`python -m benchmarks.coverage --families` runs one network of each family; each in a process of its own, with a limit
of time and of memory. It may be stopped at any point and goes on from there; `--again` redoes what failed.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.families import Network, families, timm_networks, torchvision_networks
from benchmarks.rows import Row, append, read, tidy

RESULTS = Path(__file__).parent / "coverage.jsonl"
POLL = 0.25
"""Seconds between two looks at a running network."""


@dataclass(frozen=True)
class Limits:
    """What one network may take.

    Attributes:
        seconds: wall seconds.
        memory_gb: memory of its process, in 10^9 bytes.
        threads: threads of torch; more than one helps little, and hurts where other work has the cores.
    """

    seconds: float = 420.0
    memory_gb: float = 12.0
    threads: int = 1


def needs_gb(network: Network) -> float:
    """Memory a network is expected to need, in 10^9 bytes: torch itself, then copies of the weights in two types."""
    return 1.0 + network.parameters * 40 / 1e9


def sweep(networks: Iterable[Network], results: Path, limits: Limits, again: Sequence[str], until: float) -> None:
    """Run the networks that have no row yet, smallest first.

    Args:
        networks: which.
        results: the file their rows go to.
        limits: what each may take.
        again: networks to run even so; `failed` stands for all whose row is not ok.
        until: when to begin no further one, by `time.monotonic`.
    """
    rows = read(results)
    for network in sorted(networks, key=lambda n: n.work):
        row = rows.get(network.spec)
        redo = row is not None and (network.spec in again or ("failed" in again and row.status != "ok"))
        if row is not None and not redo:
            continue
        if time.monotonic() >= until:
            return
        row = run(network, limits)
        append(results, row)
        print(told(row), flush=True)
    tidy(results)


def run(network: Network, limits: Limits) -> Row:
    """The row of one network, measured in a process of its own."""
    empty = Row(network.spec, network.family, network.parameters, network.size[1:], "not run")
    if needs_gb(network) > limits.memory_gb:
        return replace(empty, reason=f"needs about {needs_gb(network):.0f} GB")
    given = [network.spec, network.family, network.parameters, *network.size[1:], limits.threads]
    return in_a_process("benchmarks.measure", given, empty, limits)


def in_a_process(module: str, given: Sequence[object], empty: Row, limits: Limits) -> Row:
    """The row that a module leaves, run as a process of its own.

    Args:
        module: it is given `given` and a folder, and writes `stage` and `row` into that.
        given: its arguments.
        empty: the row to fill in where it left none.
        limits: what it may take.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "stderr").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, given), name], stdout=errors, stderr=errors
            )
            reason = watch(process, limits)
        if (folder / "row").exists():
            return Row.from_json((folder / "row").read_text())
        stage = (folder / "stage").read_text() if (folder / "stage").exists() else "start"
        if reason:
            return replace(empty, stage=stage, reason=reason)
        last = ((folder / "stderr").read_text(errors="replace").strip().splitlines() or [""])[-1]
        return replace(empty, status="failed", stage=stage, reason=f"{died(process.returncode)} {last}"[:400].strip())


def watch(process: subprocess.Popen[bytes], limits: Limits) -> str:
    """Wait for a process, and end it where it goes beyond a limit; says which, or nothing."""
    end = time.monotonic() + limits.seconds
    try:
        while process.poll() is None:
            if time.monotonic() > end:
                return f"longer than {limits.seconds:.0f} s"
            if held_gb(process.pid) > limits.memory_gb:
                return f"more than {limits.memory_gb:.0f} GB"
            time.sleep(POLL)
        return ""
    finally:
        process.kill()
        process.wait()


def held_gb(pid: int) -> float:
    """Memory that a process holds, in 10^9 bytes; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmRSS:"))


def died(code: int) -> str:
    """How a process ended that left no row."""
    return f"ended by {signal.Signals(-code).name}." if code < 0 else f"ended with status {code}."


def told(row: Row) -> str:
    """One line about a row."""
    took = sum(row.seconds.values())
    if row.status != "ok":
        return f"{row.spec}: {row.status} {row.stage} {row.reason} [{took:.0f} s]"
    worst = max(row.errors.get("ort1") or 0.0, row.errors.get("ort3") or 0.0)
    return (
        f"{row.spec}: ok, {row.softened + row.frozen} of {row.gates} gates, {row.exact} exact, "
        f"graph {row.errors['graph']:.0e}, ort {worst:.0e}, nodes {row.nodes}/{row.model_nodes}, "
        f"{row.peak_gb:.1f} GB, {dict(row.seconds)}"
    )


def chosen(options: argparse.Namespace) -> list[Network]:
    """The networks that the command names."""
    if options.names:
        known = {n.spec: n for n in families()}
        for others in (torchvision_networks, timm_networks):
            if not known.keys() >= set(options.names):
                known |= {n.spec: n for n in others()}
        missing = set(options.names) - known.keys()
        if missing:
            raise SystemExit(f"no such network: {', '.join(sorted(missing))}; write timm:NAME or torchvision:NAME")
        networks = [known[name] for name in options.names]
    else:
        networks = timm_networks() if options.all else families()
    return [replace(n, size=(3, options.size, options.size)) for n in networks] if options.size else networks


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="benchmarks.coverage", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--families", action="store_true", help="the smallest network of each family")
    which.add_argument("--all", action="store_true", help="every network of timm")
    which.add_argument("--names", nargs="+", metavar="SPEC", help="timm:NAME or torchvision:NAME")
    parser.add_argument("--size", type=int, help="height and width of the input; the network's own if left out")
    parser.add_argument(
        "--again", nargs="*", default=[], metavar="SPEC", help="run these again; all that failed if none"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--limit-minutes", type=float, default=float("inf"), help="begin no further network after this")
    parser.add_argument("--memory-gb", type=float, default=Limits.memory_gb)
    parser.add_argument("--seconds", type=float, default=Limits.seconds, help="limit for one network")
    parser.add_argument("--threads", type=int, default=Limits.threads)
    options = parser.parse_args(argv)
    again = options.again or (["failed"] if "--again" in (argv or sys.argv) else [])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the network running now is ended too
    until = time.monotonic() + 60 * options.limit_minutes
    limits = Limits(options.seconds, options.memory_gb, options.threads)
    sweep(chosen(options), options.results, limits, again, until)


if __name__ == "__main__":
    main()

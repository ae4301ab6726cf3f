"""Temperatures swept: one for all gates, each gate's own in proportion to its input, and that of attention.

`python -m benchmarks.evidence.temperatures` writes results/temperatures.md, .csv and .svg: for each network how good
the pullback and the contribution are at every temperature, and which is best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from benchmarks.evidence import baselines
from benchmarks.evidence.command import Run, run_of
from benchmarks.evidence.sweep import PANELS, Sweep, page, picture
from benchmarks.evidence.tables import as_csv
from benchmarks.evidence.variants import OURS, Variant, compiled, measured
from benchmarks.networks import Network
from fxpullback import SEMANTIC, RuleSet
from fxpullback.export import Session
from fxpullback.rules.ruleset import SPREAD

STUDY = "temperatures"
NAMES = (*baselines.NAMES, "demo")
COUNT = 12
ASKED = ("occlusion", "mosaic", "infidelity")
VALUES = (0.1, 0.2, 0.4, 0.6, SPREAD, 1.2, 1.6, 2.0)
FIXED, CALIBRATED, ATTENTION, PAPER = "fixed", "calibrated", "attention", "paper"


def of_fixed(value: float) -> RuleSet:
    """One temperature for all gates, half of it for max-pools; attention keeps 1."""
    shares = {rule.public: rule.spread for rule in SEMANTIC.all_rules if rule.spread is not None}
    return SEMANTIC.with_temperature(**{name: value * share for name, share in shares.items()})


def of_attention(value: float) -> RuleSet:
    """Gates as the default has them, the softmax of attention at a temperature."""
    return SEMANTIC.with_spread().with_temperature(attention=value)


KINDS: Mapping[str, Callable[[float], RuleSet]] = {
    FIXED: of_fixed,
    CALIBRATED: SEMANTIC.with_spread,
    ATTENTION: of_attention,
}
DEFAULTS = {CALIBRATED: SPREAD, ATTENTION: 1.0}


def places_of(kind: str) -> dict[float, str | None]:
    """The variant's name at each temperature of a kind; None for the default."""
    values = sorted({*VALUES, DEFAULTS[kind]}) if kind in DEFAULTS else VALUES
    return {value: None if DEFAULTS.get(kind) == value else f"{kind} {value:g}" for value in values}


def kinds_of(network: Network, run: Run) -> tuple[str, ...]:
    """What can be swept: attention where there is some."""
    rows = Session(compiled(network, OURS, run.build)).ledger["rows"]
    return tuple(KINDS) if any(row["rule"] == "attention" for row in rows) else (FIXED, CALIBRATED)


def variants_of(kinds: Sequence[str]) -> list[Variant]:
    """A file with the paper's temperatures, and one for each temperature but the default's."""
    found = [Variant(PAPER, SEMANTIC)]
    for kind in kinds:
        found += [Variant(name, KINDS[kind](value)) for value, name in places_of(kind).items() if name is not None]
    return found


def measure(run: Run) -> dict[str, Sweep]:
    """The sweep of every network."""
    found = {}
    for network in run.networks():
        kinds = kinds_of(network, run)
        sweep = {kind: places_of(kind) for kind in kinds}
        variants = variants_of(kinds)
        names = [panel.of(variant) for panel in PANELS for variant in (None, *(one.name for one in variants))]
        methods = list(dict.fromkeys(names))
        found[network.name] = Sweep(measured(run, network, ASKED, variants=variants, methods=methods), sweep)
    return found


ABOUT = f"""# Temperatures

`python -m benchmarks.evidence.temperatures`. Means over correctly classified pictures, plus or minus half a 95 %
interval. Three sweeps: *{FIXED}*, one T for all gates, half of it for max-pools, 1 for attention; *{CALIBRATED}*, each
gate's T in proportion to the deviation of its input on noise, the factor swept (default {SPREAD:g}); *{ATTENTION}*,
gates as the default has them, the T of attention's softmax swept (default 1). Infidelity (share missed, lower is
better) and predicted change are the pullback's; occ2 (occlusion, wide) and GP (grid pointing) the contribution's.
"""


def main(arguments: Sequence[str] | None = None) -> Run:
    """Measure and write."""
    run = run_of(STUDY, "Temperatures swept.", NAMES, COUNT, arguments)
    sweeps = measure(run)
    run.write(".csv", as_csv({name: sweep.report for name, sweep in sweeps.items()}))
    run.write(".svg", picture(sweeps, "T, or its factor"))
    run.write(".md", page(ABOUT, sweeps, f"{STUDY}.svg", {PAPER: "the paper's"}))
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

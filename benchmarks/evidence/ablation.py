"""What each part adds: the rules one by one, calibration, noise, double pullback, and where contributions are read off.

`python -m benchmarks.evidence.ablation` writes results/ablation.md, .csv and .svg: the default with one thing changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.evidence import baselines
from benchmarks.evidence.baselines import double_of
from benchmarks.evidence.command import Run, run_of
from benchmarks.evidence.figures import COLOURS, MARKERS, figure, legend, svg
from benchmarks.evidence.sweep import Panel
from benchmarks.evidence.tables import AHEAD, BEHIND, LEVEL, Verdict, as_csv, cell, markdown, verdict
from benchmarks.evidence.variants import OURS, Variant, compiled, measured
from benchmarks.gallery_page import short_number
from benchmarks.networks import Network
from fxpullback import SEMANTIC, RuleSet
from fxpullback.export import Session
from fxpullback.export.evaluate import Report

STUDY = "ablation"
NAMES = (*baselines.NAMES, "demo")
COUNT = 12
ASKED = ("occlusion", "mosaic", "infidelity")
PANELS = (
    Panel("infidelity, share", "pullback", "pullback: infidelity"),
    Panel("predicted change", "pullback", "pullback: predicted"),
    Panel("occlusion, wide", "contribution", "contribution: occ2"),
    Panel("grid pointing", "contribution", "contribution: GP"),
)
POOLS = ("max_pool", "adaptive_max_pool", "amax", "maximum")
NORMS = ("layer_norm", "group_norm", "rms_norm", "normalization_by_hand", "centring_by_hand")
PRODUCTS = ("gated_product", "self_gated")
GATES = tuple(
    sorted({rule.public for rule in SEMANTIC.all_rules if rule.spread is not None} - {*POOLS, *PRODUCTS, "attention"})
)
KEPT = {
    "gates exact": GATES,
    "max-pools exact": POOLS,
    "attention exact": ("attention",),
    "normalization exact": NORMS,
    "gated products exact": PRODUCTS,
    "fake quantisation exact": ("fake_quantize",),
}
"""What is differentiated as it is, in place of its rule."""
GRADIENT = "everything exact"
MARKS = {AHEAD: " ▲", BEHIND: " ▼", LEVEL: ""}


@dataclass(frozen=True)
class Change:
    """The default with one thing changed.

    Attributes:
        name: What is changed.
        variant: The file; None for the gradient's, which `measured` makes in any case.
    """

    name: str
    variant: Variant | None

    def of(self, panel: Panel) -> str:
        """The method that a number is asked of."""
        if self.variant is None:
            return {"pullback": "gradient", "contribution": "HiResCAM"}[panel.kind]
        return panel.of(self.variant.name)


def calibrated() -> RuleSet:
    """The rules of the default."""
    return SEMANTIC.with_spread()


def changes_of(network: Network, run: Run) -> list[Change]:
    """Those that change something in this network."""
    session = Session(compiled(network, OURS, run.build))
    used = {row["rule"] for row in session.ledger["rows"]}
    found = [Change(GRADIENT, None)]
    for name, rules in KEPT.items():
        if used & set(rules):
            found.append(Change(name, Variant(name, calibrated().keep_exact(*rules))))
    found.append(Change("the paper's temperatures", Variant("paper", SEMANTIC)))
    if used & set(GATES):
        found.append(Change("logistic noise", Variant("logistic", calibrated().with_noise("logistic"))))
    found.append(Change("double", double_of(network.preprocessing.size[0])))
    taps = session.contributions.places if session.contributions else ()
    for place, tap in places_in([one.name for one in taps]).items():
        found.append(Change(place, Variant(place, taps=(tap,))))
    return found


def places_in(taps: Sequence[str]) -> dict[str, str]:
    """The first, the middle and the last of several taps."""
    if len(taps) < 2:
        return {}
    found = {"first tap alone": taps[0], "last tap alone": taps[-1]}
    return found if len(taps) == 2 else found | {"middle tap alone": taps[len(taps) // 2]}


@dataclass(frozen=True)
class Ablation:
    """One network's report and the changes in it."""

    report: Report
    changes: Sequence[Change]

    def cells(self, change: Change) -> dict[Panel, Verdict]:
        """What the change does to each number: positive where the changed one is better."""
        found: dict[Panel, Verdict] = {}
        for panel in PANELS:
            column = next((column for column in self.report.columns if column.name == panel.column), None)
            if column is not None and not (change.name.endswith("alone") and panel.kind == "pullback"):
                one = verdict(self.report, column, [change.of(panel)], [panel.of(None)])
                found |= {panel: one} if one is not None else {}
        return found


def measure(run: Run) -> dict[str, Ablation]:
    """Every network."""
    found = {}
    for network in run.networks():
        changes = changes_of(network, run)
        variants = [change.variant for change in changes if change.variant is not None]
        asked = [panel.of(None) for panel in PANELS] + [change.of(panel) for change in changes for panel in PANELS]
        methods = [name for name in dict.fromkeys(asked) if not name.endswith("alone pullback")]
        found[network.name] = Ablation(measured(run, network, ASKED, variants=variants, methods=methods), changes)
    return found


def table(ablation: Ablation) -> str:
    """The default, then a line for each change."""
    report = ablation.report
    known = {column.name: column for column in report.columns}
    panels = [panel for panel in PANELS if panel.column in known]
    heads = [f"{panel.heading} {'↑' if known[panel.column].high else '↓'}" for panel in panels]
    rows = [["the default", *(cell(report.mean(known[panel.column], panel.of(None))) for panel in panels)]]
    for change in ablation.changes:
        cells = ablation.cells(change)
        line = [change.name]
        for panel in panels:
            one = cells.get(panel)
            line.append("" if one is None else cell(report.mean(known[panel.column], one.ours)) + MARKS[one.word])
        rows.append(line)
    return markdown(["", *heads], rows)


def summary(ablations: Mapping[str, Ablation]) -> str:
    """For each change and number: on how many networks it is better, level, worse, and by how much in the mean."""
    rows = []
    for name in names_of(ablations):
        line = [name]
        for panel in PANELS:
            found = verdicts(ablations, name, panel)
            words = Counter(one.word for one in found.values())
            mean = sum(one.gap.mean for one in found.values()) / len(found) if found else 0.0
            counts = f"{words[AHEAD]} / {words[LEVEL]} / {words[BEHIND]}"
            line.append(f"{counts}, {'+' if mean >= 0 else ''}{short_number(mean)}" if found else "")
        rows.append(line)
    return markdown(["", *(panel.heading for panel in PANELS)], rows)


def names_of(ablations: Mapping[str, Ablation]) -> list[str]:
    """Every change, in the order of the network that has most."""
    longest = sorted(ablations.values(), key=lambda one: -len(one.changes))
    return list(dict.fromkeys(change.name for ablation in longest for change in ablation.changes))


def verdicts(ablations: Mapping[str, Ablation], name: str, panel: Panel) -> dict[str, Verdict]:
    """What a change does to a number, by network."""
    found = {}
    for network, ablation in ablations.items():
        for change in ablation.changes:
            if change.name == name and panel in (cells := ablation.cells(change)):
                found[network] = cells[panel]
    return found


def picture(ablations: Mapping[str, Ablation]) -> str:
    """A panel for each number, changes from top to bottom, a mark for each network."""
    names = names_of(ablations)
    with figure(1, len(PANELS), width=2.4, height=0.5 + 0.32 * len(names)) as (drawn, axes):
        for panel, axis in zip(PANELS, axes.flat, strict=True):
            axis.axvline(0, color="#5d5d66", linewidth=0.8)
            for row, name in enumerate(names):
                for network, one in verdicts(ablations, name, panel).items():
                    number = list(ablations).index(network)
                    style = {"color": COLOURS[number], "marker": MARKERS[number % len(MARKERS)], "label": network}
                    solid = one.word != LEVEL
                    axis.scatter([one.gap.mean], [row], s=22, alpha=1.0 if solid else 0.35, **style)
            axis.set(title=panel.heading, ylim=(len(names) - 0.5, -0.5))
            axis.set_yticks(range(len(names)), names if panel is PANELS[0] else [""] * len(names))
            axis.locator_params(axis="x", nbins=4)
            axis.set_xlabel("better →")
        legend(drawn, axes, loc="outside lower center", ncols=4)
        return svg(drawn)


ABOUT = """# What each part adds

`python -m benchmarks.evidence.ablation`. The default with one thing changed; everything else stays. Correctly
classified pictures. *exact* means differentiated as it is, in place of its rule; *everything exact* is the gradient,
and HiResCAM at the same taps. Infidelity (share missed, lower is better) and predicted change are the pullback's; occ2
(occlusion, wide) and GP (grid pointing) the contribution's.
"""


def page(ablations: Mapping[str, Ablation]) -> str:
    """The Markdown page."""
    parts = [
        ABOUT,
        "## All networks\n",
        "On how many networks the change is better / level / worse by the 95 % interval of paired differences, and the "
        "mean difference over the networks, positive where the change is better.\n",
        summary(ablations),
        f"![Differences by change; pale where the interval holds 0]({STUDY}.svg)\n",
    ]
    for name, ablation in ablations.items():
        count = ablation.report.about["count"]
        parts += [f"## {name}\n", f"{count} pictures. ▲ better than the default, ▼ worse.\n", table(ablation)]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> Run:
    """Measure and write."""
    run = run_of(STUDY, "What each part adds.", NAMES, COUNT, arguments)
    ablations = measure(run)
    run.write(".csv", as_csv({name: ablation.report for name, ablation in ablations.items()}))
    run.write(".svg", picture(ablations))
    run.write(".md", page(ablations))
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

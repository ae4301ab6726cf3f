"""An evaluation from beginning to end: which metrics apply, picture by picture, rows as they come."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import fxpullback
from fxpullback.contract.errors import EvaluateError, FxPullbackError
from fxpullback.export.evaluate.cases import FORMS, Pictures, find
from fxpullback.export.evaluate.methods import Method
from fxpullback.export.evaluate.metrics import ANY_CLASS, MASKS, METRICS, TRUTH, WEIGHTS, Metric
from fxpullback.export.evaluate.report import Report, Skipped
from fxpullback.export.evaluate.rows import Row, Rows
from fxpullback.export.evaluate.served import Served
from fxpullback.export.evaluate.settings import Settings, short
from fxpullback.export.evaluate.sources import Source, of_controls, of_file
from fxpullback.export.evaluate.trial import NoNumber, Trial
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.runtime.providers import Provider

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much, and what comes next."""
MOSAIC = 4


def evaluate(
    file: str | Path,
    pictures: str | Path,
    *,
    sources: Sequence[Callable[[Served, Settings], Source]] = (),
    metrics: Sequence[str | Metric] | None = None,
    methods: Sequence[str] | None = None,
    settings: Settings | None = None,
    limit: int | None = None,
    only_correct: bool = False,
    reference: str | None = None,
    rows: Path | None = None,
    providers: Sequence[Provider] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure the explanations of a file on pictures, beside baselines and controls.

    Args:
        file: What is evaluated; its forward is the network that every metric asks.
        pictures: A folder: pictures with a `labels.csv`, subfolders by class, or pictures alone.
        sources: Baselines: functions such as `exact_baselines("exact.onnx")` or `torch_baselines(model)`.
        metrics: Which, by name, or metrics of your own such as `quantus_metric(...)`; None for all that apply.
        methods: Which, by name; None for all there are.
        settings: Seed, grid, steps, runs.
        limit: At most so many pictures, the first ones.
        only_correct: Only pictures whose label is the network's top-1 class.
        reference: The method that others are compared with, picture by picture; None for the first one.
        rows: A file that rows are written to as they come, and read from where it is there already.
        providers: Execution providers, as `Session` takes them.
        progress: Told how far it is.

    Returns:
        Rows, means with intervals, differences, and what was left out with the reason.

    Raises:
        EvaluateError: No pictures, no labels where a metric that was asked for needs them, a name that there is not, a
            file that cannot be evaluated. Rows that were written stay.
        SessionError: The file cannot be loaded.
    """
    settings = settings or Settings()
    kept = Rows(rows)
    served = Served(Path(file), None if providers is None else list(providers))
    job = _Job(served, settings, _pictures(served, Path(pictures)), limit, only_correct)
    job.take([of_file(served, settings), *(make(served, settings) for make in sources), of_controls(settings)], methods)
    plan, skipped = job.plan(metrics)
    known = [method.name for method in job.methods]
    if reference is not None and reference not in known:
        raise EvaluateError(f"reference {reference!r}: it is none of the methods, {', '.join(known)}.")
    found = job.run(plan, kept, skipped, progress or (lambda done, of, what: None))
    return Report(
        rows=tuple(found),
        metrics=tuple(metric for metric, _ in plan),
        methods=tuple((method.name, method.text) for method in job.methods),
        controls=tuple(method.name for method in job.methods if method.control),
        reference=reference or known[0],
        skipped=tuple(skipped),
        about={"file": str(file), "pictures": str(pictures)} | job.about(),
    )


class _Job:
    """What one evaluation works on."""

    def __init__(
        self, served: Served, settings: Settings, pictures: Pictures, limit: int | None, only_correct: bool
    ) -> None:
        self.served, self.settings, self.pictures = served, settings, pictures
        self.labels = [case.label for case in pictures.cases]
        top = [int(served.predict(pictures[place][None])[0].argmax()) for place in range(len(pictures))]
        known = [place for place, label in enumerate(self.labels) if label is not None]
        if only_correct and not known:
            raise EvaluateError(f"only correctly classified pictures were asked for, and no labels are there: {FORMS}.")
        self.accuracy = float(np.mean([top[p] == self.labels[p] for p in known])) if known else None
        self.places = [p for p in range(len(pictures)) if not only_correct or top[p] == self.labels[p]][:limit]
        if not self.places:
            raise EvaluateError("none of the pictures is classified correctly, so there is nothing to measure.")
        truth = [t if label is None else label for t, label in zip(top, self.labels, strict=True)]
        self.indices = truth if served.any_class else top
        self.sources: list[Source] = []
        self.absent: dict[str, str] = {}
        self.methods: list[Method] = []
        self._from: dict[str, Source] = {}

    def about(self) -> dict[str, Any]:
        """What was run, for the report."""
        session = self.served.session
        return {
            "sha256": self.sources[0].identity,
            "program": session.metadata.program_name,
            "rules": str(session.rules.get("name", "")),
            "contribution": "none" if session.contributions is None else str(session.contributions),
            "count": len(self.places),
            "accuracy": self.accuracy,
            "settings": asdict(self.settings),
            "version": fxpullback.__version__,
        }

    def take(self, sources: Sequence[Source], wanted: Sequence[str] | None) -> None:
        """Keep the methods of all sources that are wanted."""
        self.sources = list(sources)
        for source in sources:
            self.absent |= source.absent
            for method in source.methods:
                if method.name in self._from:
                    raise EvaluateError(f"two methods are called {method.name}: name one of them otherwise.")
                self._from[method.name] = source
                self.methods.append(method)
        if wanted is not None:
            missing = [name for name in wanted if name in self.absent]
            if missing:
                raise EvaluateError(f"{missing[0]}: {self.absent[missing[0]]}")
            _check_names("method", wanted, [method.name for method in self.methods])
            self.methods = [method for method in self.methods if method.name in wanted]

    def plan(self, wanted: Sequence[str | Metric] | None) -> tuple[list[tuple[Metric, list[Method]]], list[Skipped]]:
        """Each metric with the methods it applies to, and what is left out."""
        if wanted is not None:
            names = [metric for metric in wanted if isinstance(metric, str)]
            _check_names("metric", names, [metric.name for metric in METRICS])
        found, skipped = [], [Skipped("every metric", name, reason) for name, reason in self.absent.items()]
        for metric in _chosen(wanted):
            reason = self._lacks(metric)
            if reason and wanted is not None:
                raise EvaluateError(f"{metric.name}: {reason}")
            if reason:
                skipped.append(Skipped(metric.name, None, reason))
                continue
            fitting = []
            for method in self.methods:
                if why := self._unfit(metric, method):
                    skipped.append(Skipped(metric.name, method.name, why))
                else:
                    fitting.append(method)
            if fitting:
                found.append((metric, fitting))
        if not found:
            raise EvaluateError("nothing can be measured: " + " ".join(f"{s.metric}: {s.reason}" for s in skipped))
        return found, skipped

    def _lacks(self, metric: Metric) -> str | None:
        """What the pictures lack for a metric."""
        classes = {label for label in self.labels if label is not None}
        if TRUTH in metric.needs and len(classes) < MOSAIC:
            return (
                f"it puts pictures of {MOSAIC} classes together, and labels of {len(classes)} are there. Give labels: "
                f"{FORMS}."
            )
        if MASKS in metric.needs and not any(self.pictures.cases[place].mask for place in self.places):
            return f"it needs to know where the object is. Give masks: {FORMS}."
        return None

    def _unfit(self, metric: Metric, method: Method) -> str | None:
        """Why a method is not measured by a metric."""
        if ANY_CLASS in metric.needs and not method.any_class:
            return "it explains the top-1 class alone. Compile the model with --target index."
        if WEIGHTS in metric.needs and self._from[method.name].again is None:
            return "its weights cannot be drawn anew."
        return None

    def run(
        self, plan: list[tuple[Metric, list[Method]]], kept: Rows, skipped: list[Skipped], progress: Progress
    ) -> list[Row]:
        """Measure what is missing; returns all rows of this evaluation."""
        found: list[Row] = []
        failed: set[tuple[str, str]] = set()
        whole, done = len(self.places) * len(plan), 0
        for place in self.places:
            trial = self._trial(place)
            for metric, methods in plan:
                progress(done, whole, f"{metric.name}, {trial.name}")
                done += 1
                for method in methods:
                    if (metric.name, method.name) in failed or not self._applies(metric, place):
                        continue
                    held = self._held(kept, metric, method, trial)
                    if held is None:
                        try:
                            held = self._measured(metric, method, trial)
                        except FxPullbackError as error:
                            if not isinstance(error, NoNumber):
                                failed.add((metric.name, method.name))
                            skipped.append(Skipped(metric.name, method.name, str(error)))
                            continue
                        kept.add(held)
                    found += held
        progress(whole, whole, "done")
        return found

    def _applies(self, metric: Metric, place: int) -> bool:
        case = self.pictures.cases[place]
        return not (TRUTH in metric.needs and case.label is None) and not (MASKS in metric.needs and case.mask is None)

    def _trial(self, place: int) -> Trial:
        return Trial(
            place, self.indices[place], self.pictures, self.labels, self.served.predict, self.settings, self._again
        )

    def _again(self, name: str, share: float) -> Method | None:
        again = self._from[name].again
        return None if again is None else next(method for method in again(share) if method.name == name)

    def _key(self, method: Method, trial: Trial) -> str:
        """Everything a value hangs on beside metric, method and picture's name."""
        by = self._from[method.name].identity
        file = self.sources[0].identity
        return short(f"{file} {by} {self.settings.digest} {self.pictures.digest(trial.place)} {trial.index}")

    def _held(self, kept: Rows, metric: Metric, method: Method, trial: Trial) -> list[Row] | None:
        key = self._key(method, trial)
        held = [kept.get(column.name, method.name, trial.name, key) for column in metric.columns]
        rows = [row for row in held if row is not None]
        return rows if len(rows) == len(held) else None

    def _measured(self, metric: Metric, method: Method, trial: Trial) -> list[Row]:
        values, key = metric.measure(trial, method), self._key(method, trial)
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise NoNumber(trial.name, f"{', '.join(bad)} of {method.name} is no number")
        return [Row(name, method.name, trial.name, float(value), key) for name, value in values.items()]


def _chosen(wanted: Sequence[str | Metric] | None) -> list[Metric]:
    """The metrics asked for, in the order of the table, then those that are not in it."""
    if wanted is None:
        return [metric for metric in METRICS if metric.default]
    own = [metric for metric in wanted if isinstance(metric, Metric)]
    return [metric for metric in METRICS if metric.name in wanted] + own


def _pictures(served: Served, folder: Path) -> Pictures:
    cases = find(folder, served.session.classes, served.session.class_count)
    held = served.session.preprocessing
    return Pictures(cases, Preprocessing.plain(served.shape) if held is None else Preprocessing.from_json(held))


def _check_names(kind: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise EvaluateError(f"{kind} {', '.join(unknown)}: there is none of that name. There are {', '.join(known)}.")

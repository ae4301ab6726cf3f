"""The study of training through the injected form: gradients against torch and by hand, data, tables."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.evidence import training, training_measure, training_run
from benchmarks.evidence.command import Run
from benchmarks.evidence.training_form import form_of, temperatures_for, without_gradient
from benchmarks.evidence.training_measure import (
    ACCURACIES,
    METHODS,
    Found,
    cifar_pictures,
    correct,
    drawn_pictures,
    named,
    report_of,
)
from benchmarks.evidence.training_networks import CIFAR_CLASSES, MARGIN, Recipe, ResNet20, of_cifar, read, shifted
from benchmarks.evidence.training_run import CALIBRATED, ORDINARY, PAPER, Way, batches, order, train
from benchmarks.networks import Network
from fxpullback import EXACT, SEMANTIC
from fxpullback.export.evaluate import Report
from fxpullback.export.evaluate.metrics import Column
from fxpullback.export.evaluate.rows import Row
from fxpullback.export.zoo.demo_model import DemoNet
from tests.helpers import draw


class Small(nn.Module):
    """Convolution, batch norm, functional ReLU, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))  # type: ignore[no-any-return]


class Alike(nn.Module):
    """Parameters `a_b.weight` and `a.b.weight`, which flat names do not tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.a_b, self.a = nn.Linear(3, 3), nn.ModuleDict({"b": nn.Linear(3, 2)})

    def forward(self, x: Tensor) -> Tensor:
        return self.a["b"](F.relu(self.a_b(x)))  # type: ignore[no-any-return]


def gradients(model: nn.Module, logits: Tensor) -> dict[str, Tensor]:
    weights = dict(model.named_parameters())
    slopes = torch.autograd.grad((logits * draw(*logits.shape).float()).sum(), list(weights.values()))
    return dict(zip(weights, slopes, strict=True))


@pytest.mark.parametrize("make", [Small, DemoNet])
def test_without_rules_the_form_is_the_model_in_training_mode(make: type[nn.Module]) -> None:
    model = make().train()
    plain = copy.deepcopy(model)
    x = draw(4, 3, 64, 64).float()
    form = form_of(model, x[:2], EXACT)
    logits, expected = form(x), plain(x)
    assert torch.equal(logits, expected)
    found, wanted = gradients(model, logits), gradients(plain, expected)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    buffers, moved = dict(model.named_buffers()), dict(plain.named_buffers())
    names = [name for name in moved if name.endswith(("mean", "var"))]
    assert names
    assert all(torch.equal(buffers[name], moved[name]) for name in names)
    assert not torch.equal(moved[names[0]], dict(make().named_buffers())[names[0]])


def test_gradients_for_weights_pass_soft_gates() -> None:
    model = Small().train()
    x = draw(4, 3, 8, 8).float()
    hard = form_of(model, x[:2], EXACT)(x)
    logits = form_of(model, x[:2], SEMANTIC)(x)
    assert torch.equal(hard, logits)
    z = F.batch_norm(model.conv(x), None, None, model.norm.weight, model.norm.bias, training=True)
    by_hand = model.head((z * torch.special.ndtr(z / 0.6).detach()).mean((2, 3)))  # a soft gate's own slope
    found, wanted = gradients(model, logits), gradients(model, by_hand)
    for name in ("conv.weight", "norm.weight", "norm.bias"):
        assert torch.allclose(found[name], wanted[name], atol=1e-6)
    exact = gradients(model, hard)
    assert not torch.allclose(found["conv.weight"], exact["conv.weight"], rtol=0.01)
    assert torch.allclose(found["head.weight"], exact["head.weight"])  # it sees the values, which are the model's


def test_temperatures_are_of_the_batch_norms_own_output() -> None:
    model = Small().train()
    before = copy.deepcopy(model.state_dict())
    x = 5 + 3 * draw(16, 3, 8, 8).float()
    rules = temperatures_for(model, [x], SEMANTIC.with_spread(0.5))
    assert rules.calibrated["relu"] == pytest.approx(0.5, rel=0.02)  # normalised: deviation 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_whole_rules_leave_the_gates_that_they_hold_constant_untrained() -> None:
    model, x = DemoNet().train(), draw(4, 3, 64, 64).float()
    whole = without_gradient(model, form_of(model, x[:2], SEMANTIC), x)
    assert {name for name, share in whole.items() if share == 1} >= {"gate.up.weight", "gate.down.weight"}
    assert whole["blocks.0.attention.qkv.weight"] == pytest.approx(2 / 3)  # query and key
    alone = without_gradient(model, form_of(model, x[:2], SEMANTIC.keep_exact("attention", "gated_product")), x)
    assert not any(share > 0.5 for share in alone.values())


def test_parameters_of_like_names_are_refused() -> None:
    with pytest.raises(ValueError, match="none of the model's parameters"):
        form_of(Alike(), torch.zeros(2, 3), EXACT)


def tiny(name: str = "tiny", epochs: int = 2) -> Recipe:
    x, y = draw(24, 3, 8, 8).float(), torch.arange(24) % 10

    def optimiser(model: nn.Module, rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=rate)

    return Recipe(name, Small, (x, y), (x, y), lambda x, _: x, optimiser, 0.1, epochs, 8, 0.0, CIFAR_CLASSES)


def test_every_way_begins_alike_and_sees_the_same_pictures() -> None:
    recipe = tiny()
    first = [torch.stack([x.sum() for x, _ in batches(recipe, 3, 1)]) for _ in range(2)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(order(recipe, 3, 1)[0], order(recipe, 3, 2)[0])
    assert sorted(torch.cat(order(recipe, 3, 1)).tolist()) == list(range(24))


def test_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tiny(), CALIBRATED, 0, tmp_path / "whole")
    calls: list[int] = []
    epoch = training_run._epoch

    def stopping(*given: object) -> float:
        if len(calls) == 1:
            calls.append(0)
            raise KeyboardInterrupt
        calls.append(0)
        return epoch(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(training_run, "_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), CALIBRATED, 0, tmp_path / "parts")
    again = train(tiny(), CALIBRATED, 0, tmp_path / "parts")
    assert len(calls) == 3
    state = again.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.model.state_dict().items())
    assert again.losses == whole.losses
    path = tmp_path / "whole" / "tiny-calibrated-0.pt"
    assert training_run._read(path, tiny(), CALIBRATED)["losses"] == list(whole.losses)
    assert training_run._read(path, tiny(epochs=3), CALIBRATED) == {}
    assert training_run._read(path, tiny(), PAPER) == {}


def test_ordinary_training_is_torchs(tmp_path: Path) -> None:
    recipe = tiny(epochs=1)
    trained = train(recipe, ORDINARY, 5, tmp_path).model
    torch.manual_seed(5)
    model = Small()
    optimiser = recipe.optimiser(model, 0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=3, pct_start=0.3)
    for x, y in batches(recipe, 5, 0):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
        schedule.step()
    state = trained.state_dict()
    held = {name: value for name, value in model.state_dict().items() if "tracked" not in name}
    assert all(torch.equal(value, state[name]) for name, value in held.items())


def test_pictures_are_shifted_and_mirrored() -> None:
    x = draw(64, 3, 32, 32).float()
    out = shifted(x, torch.Generator().manual_seed(0))
    wide = F.pad(x, (MARGIN,) * 4)
    views = [
        wide[:, :, top : top + 32, left : left + 32] for top in range(2 * MARGIN + 1) for left in range(2 * MARGIN + 1)
    ]
    same = torch.stack([(view == out).all((1, 2, 3)) for view in views])
    turned = torch.stack([(view.flip(3) == out).all((1, 2, 3)) for view in views])
    assert bool((same.any(0) ^ turned.any(0)).all())
    assert 20 < int(turned.any(0).sum()) < 44
    assert int((same | turned).any(1).sum()) > 30  # of 81 shifts


def cifar(folder: Path, each: int) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in CIFAR_CLASSES:
            (folder / part / name).mkdir(parents=True)
            for number in range(each):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number:04}.jpg")
    return folder


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    folder = cifar(tmp_path / "cifar", 3)
    x, y = read(folder / "train", 20)
    assert x.shape == (20, 3, 32, 32)
    assert -1 <= float(x.min()) < -0.8
    assert 0.8 < float(x.max()) <= 1
    assert y.tolist() == [label for label in range(10) for _ in range(2)]
    recipe = of_cifar(folder, 1, 30, 10)
    assert "30 pictures of 32 x 32" in str(recipe)
    with torch.no_grad():
        assert ResNet20().eval()(x[:2]).shape == (2, 10)
    assert sum(value.numel() for value in ResNet20().parameters()) == 269_722  # He et al.: 0.27 million
    with pytest.raises(SystemExit, match="3 pictures, and 4 of each"):
        read(folder / "train", 40)
    run = Run("training", ("cifar",), 12, tmp_path / "build", tmp_path)
    shown = cifar_pictures(run, folder)
    assert len(list(shown.glob("*.jpg"))) == 12
    assert (shown / "010-airplane.jpg").resolve().name == "0001.jpg"
    assert (drawn_pictures(run) / "masks").is_dir()


def test_accuracy_under_noise() -> None:
    class Sign(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([-x.mean((1, 2, 3)), x.mean((1, 2, 3))], 1)

    y = torch.arange(200) % 2
    x = (y * 2.0 - 1)[:, None, None, None].expand(200, 1, 1, 1)
    assert correct(Sign(), (x, y), 0.0) == [1.0] * 200
    assert np.mean(correct(Sign(), (x, y), 1.0)) == pytest.approx(0.841, abs=0.06)  # Phi(1)


def test_a_way_and_a_folder_that_are_not_there_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(training.FOLDER, raising=False)
    with pytest.raises(SystemExit):
        training.main(["cifar"])
    assert "--cifar or FXPULLBACK_CIFAR" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        training.main(["demo", "--ways", "backwards"])
    assert "backwards" in capsys.readouterr().err


def fake(run: Run, recipe: Recipe, ways: Sequence[Way], seeds: int, pictures: Path) -> Found:
    """Numbers made up: soft training is better by .1 with one seed, its gradient worse; all maps are alike else."""
    accuracy, maps = [], []
    for number in range(40):
        unit = f"{number:05}"
        for way in ways:
            good = number % 10 < (6 if way == ORDINARY else 7)
            accuracy += [Row(column.name, way.name, unit, float(good), "") for column in ACCURACIES]
            for method in METHODS:
                worse = 0.5 * (way != ORDINARY and method == "gradient")
                maps += [Row(column, named(way, method), unit, number / 40 - worse, "") for column in ("occlusion",)]
                maps.append(Row("infidelity, share", named(way, method), unit, number / 40 + worse, ""))
                maps.append(Row("insertion - deletion", named(way, method), unit, number / 40, ""))
    columns = (Column("occlusion", True, ""), Column("insertion - deletion", True, ""))
    held = (*columns, Column("infidelity, share", False, ""))
    names = [named(way, method) for way in ways for method in METHODS]
    return Found(
        recipe=str(recipe),
        ways=tuple(ways),
        seeds=seeds,
        accuracy=report_of(accuracy, ACCURACIES, [way.name for way in ways], seeds),
        maps=report_of(maps, held, names, seeds),
        losses={way.name: 1.0 for way in ways},
        untouched={way.name: 0.25 * (way == CALIBRATED) for way in ways},
        count=40,
    )


def test_the_page_says_what_the_numbers_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(training.FOLDER, raising=False)
    monkeypatch.setattr(training, "measure", fake)
    monkeypatch.setattr(training, "of_demo", lambda epochs, images: tiny())
    run = training.main(["--images", "32", "--seeds", "1", "--count", "2", "--build", str(tmp_path)])
    written = (run.output / "training.md").read_text()
    assert "CIFAR-10 was left out" in written
    assert "demo, calibrated, beside ordinary training: accuracy ahead, +0.100" in written
    assert "under noise ahead in 3, level in 0, behind in 0 of 3 strengths" in written
    assert "the pullback is ahead in 0, level in 3, behind in 0 of 3, the gradient ahead in 0, level in 1" in written
    assert "25 % of the weights get no gradient this way" in written
    assert "calibrated ahead in 2, level in 1, behind in 0 of 3" in written
    assert (run.output / "training.svg").is_file()


def test_one_network_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def stand_in(run: Run, network: Network, metrics: Sequence[str], **how: object) -> Report:
        asked.append(network.name)
        with torch.no_grad():
            assert network.model(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
        rows = [Row("occlusion", method, f"{n}.png", n / 2, "") for method in METHODS for n in range(3)]
        columns = (Column("occlusion", True, ""), Column("deletion", False, ""))
        return report_of(rows, columns, list(METHODS), 1)

    monkeypatch.setattr(training_measure, "measured", stand_in)
    run = Run("training", ("demo",), 3, tmp_path, tmp_path)
    found = training_measure.measure(run, tiny(epochs=1), (ORDINARY, PAPER), 2, tmp_path)
    assert asked == [f"training/tiny-{way}-{seed}" for seed in (0, 1) for way in ("ordinary", "paper")]
    assert found.maps.values("occlusion", "paper: pullback") == {"seed 0": 0.5, "seed 1": 0.5}
    assert found.accuracy.values("accuracy", "ordinary").keys() == {"seed 0", "seed 1"}
    assert found.count == 3
    single = training_measure.measure(run, tiny(epochs=1), (ORDINARY,), 1, tmp_path)
    assert single.maps.values("occlusion", "ordinary: gradient") == {"0.png": 0.0, "1.png": 0.5, "2.png": 1.0}
    assert len(single.accuracy.values("noise 0.1", "ordinary")) == 24

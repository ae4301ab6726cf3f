"""Files of weights: what is read, and what is refused and why."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.zoo.models import load_model
from fxpullback.export.zoo.weights import load_weights
from tests.export.zoo.tiny import FACTORY, Tiny

SPEC = "timm:test_resnet"


def save(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def tiny_state() -> dict[str, Tensor]:
    return Tiny().state_dict()


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_torch_weights(tmp_path: Path, wrap: Any) -> None:
    path = save(tmp_path / "w.pth", wrap(tiny_state()))
    assert load_model(FACTORY, size=8, weights=path).classes is None


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


CHECKPOINTS: dict[str, Any] = {
    "lightning": lambda s: {"epoch": 3, "state_dict": prefixed(s, "model."), "accuracy": np.float64(0.5)},
    "prefixes of two wrappers": lambda s: {"state_dict": prefixed(s, "model.module.")},
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "with an optimiser": lambda s: {"model": s, "optimizer": {"state": {}, "lr": 0.1}},
    "moving average": lambda s: {
        "state_dict": {key: value * 0 for key, value in s.items()}, "state_dict_ema": prefixed(s, "module."),
    },
    "averaged weights": lambda s: {"n_averaged": torch.tensor(3), **prefixed(s, "module.")},
    "counts of operations": lambda s: {**s, "total_ops": torch.zeros(1), "conv.total_params": torch.zeros(1)},
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_training(tmp_path: Path, name: str) -> None:
    state, model = tiny_state(), Tiny()
    load_weights(model, save(tmp_path / "w.ckpt", CHECKPOINTS[name](state)))
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_weights_of_a_loss_beside_the_model_are_refused(tmp_path: Path) -> None:
    state = {**prefixed(tiny_state(), "model."), "criterion.weight": torch.ones(4)}
    with pytest.raises(ModelSourceError, match=r"9 unexpected: .*model\.conv\.weight"):
        load_weights(Tiny(), save(tmp_path / "w.ckpt", {"state_dict": state}))


def test_weights_without_batch_counters(tmp_path: Path) -> None:
    state = {key: value for key, value in tiny_state().items() if not key.endswith("num_batches_tracked")}
    load_model(FACTORY, size=8, weights=save(tmp_path / "w.pth", state))


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = tiny_state()
    state["head.weight"] = torch.zeros(5, 216)
    state["tail.weight"] = state.pop("conv.weight")
    with pytest.raises(ModelSourceError) as caught:
        load_model(FACTORY, size=8, weights=save(tmp_path / "w.pth", state))
    text = str(caught.value)
    assert "1 missing: conv.weight" in text
    assert "1 unexpected: tail.weight" in text
    assert "1 of another shape: head.weight is [5, 216] in the file and [4, 216] in the model" in text


def test_long_lists_of_keys_are_cut(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match=r"missing: (\S+ ){5}and \d+ more"):
        load_model(SPEC, weights=save(tmp_path / "w.pth", tiny_state()))


class Evil:
    """Would write a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_pickled_code_is_refused(tmp_path: Path, form: str) -> None:
    value, path = {"conv.weight": Evil(tmp_path / "mark")}, tmp_path / "w.pth"
    if form == "torch":
        torch.save(value, path)
    else:
        path.write_bytes(pickle.dumps(value))
    with pytest.raises(ModelSourceError, match=r"holds pickled Python objects.*Save model\.state_dict\(\)"):
        load_model(FACTORY, size=8, weights=path)
    assert not (tmp_path / "mark").exists()


def test_whole_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="holds pickled Python objects"):
        load_model(FACTORY, size=8, weights=save(tmp_path / "w.pth", Tiny()))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello world", b"PK\x03\x04 nothing", b"\x80"])
def test_files_that_are_no_weights(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelSourceError, match=r"not a whole (weights|safetensors) file|holds pickled"):
        load_model(FACTORY, size=8, weights=path)


def test_truncated_weights(tmp_path: Path) -> None:
    for path in (save(tmp_path / "w.pth", tiny_state()), tmp_path / "w.safetensors"):
        if path.suffix == ".safetensors":
            save_file(tiny_state(), path)
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(ModelSourceError, match="not a whole"):
            load_model(FACTORY, size=8, weights=path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.full((4,), torch.nan), "head.bias holds NaN"),
        (torch.zeros(4, dtype=torch.int8), r"head.bias is torch.int8.*quantised"),
    ],
)
def test_weights_with_bad_values(tmp_path: Path, value: Tensor, words: str) -> None:
    with pytest.raises(ModelSourceError, match=words):
        load_model(FACTORY, size=8, weights=save(tmp_path / "w.pth", tiny_state() | {"head.bias": value}))


def test_checkpoint_without_state(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match=r"no state dict in there.*holds epoch, lr"):
        load_model(FACTORY, size=8, weights=save(tmp_path / "w.pth", {"epoch": 3, "lr": 0.1}))

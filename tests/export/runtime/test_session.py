"""Sessions: what they return, and what bad files and bad inputs get."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from fxpullback.contract.errors import InputError, SessionError
from fxpullback.export.runtime import providers
from fxpullback.export.runtime.session import ProviderWarning, Session
from tests.export import handmade

BATCH = 2
SHAPE = (BATCH, 3, handmade.SIZE, handmade.SIZE)


def picture(*shape: int) -> handmade.Array:
    return np.random.default_rng(1).uniform(-1, 1, shape or SHAPE).astype(np.float32)


def expected(cotangent: Any) -> handmade.Array:
    colour = np.asarray(cotangent, np.float32) @ handmade.weight().T / handmade.SIZE**2
    return np.broadcast_to(colour[:, :, None, None], SHAPE)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("handmade")
    made = {name: handmade.write(folder / f"{name}.onnx", name) for name in ("index", "top1", "cotangent", "contrast")}
    return made | {"ascent": handmade.write(folder / "ascent.onnx", "index", "ascent")}


@pytest.fixture(scope="module")
def session(files: dict[str, Path]) -> Session:
    return Session(files["index"])


def test_index(session: Session) -> None:
    x, hot = picture(), np.eye(5)[[4, 0]]
    result = session(x, np.array([4, 0]))
    np.testing.assert_allclose(result.logits, x.mean((2, 3)) @ handmade.weight(), atol=1e-6)
    np.testing.assert_allclose(result.pullback, expected(hot), atol=1e-7)
    assert result.counterfactual is None
    assert result.counterfactual_logits is None


def test_contrast(files: dict[str, Path]) -> None:
    result = Session(files["contrast"])(picture(), [[4, 0], [1, 2]])
    np.testing.assert_allclose(result.pullback, expected(np.eye(5)[[4, 1]] - np.eye(5)[[0, 2]]), atol=1e-7)


def test_cotangent(files: dict[str, Path]) -> None:
    cotangent = np.random.default_rng(2).normal(size=(BATCH, 5))
    result = Session(files["cotangent"])(picture(), cotangent)
    np.testing.assert_allclose(result.pullback, expected(cotangent), atol=1e-6)


def test_top1(files: dict[str, Path]) -> None:
    result = Session(files["top1"])(picture())
    np.testing.assert_allclose(result.pullback, expected(np.eye(5)[result.logits.argmax(1)]), atol=1e-7)


def test_ascent(files: dict[str, Path]) -> None:
    x = picture()
    result = Session(files["ascent"])(x, np.array([1, 1]))
    assert result.counterfactual is not None
    assert result.counterfactual_logits is not None
    np.testing.assert_allclose(result.counterfactual, x + result.pullback, atol=1e-6)
    assert result.counterfactual_logits.shape == (BATCH, 5)


def test_attributes(session: Session) -> None:
    assert session.metadata.program_name == "soft"
    assert session.program == {"name": "soft"}
    assert session.rules["temperatures"] == {"relu": 0.6}
    assert session.target == "index"
    assert session.classes == handmade.CLASSES
    assert session.preprocessing is not None
    assert session.preprocessing["size"] == [8, 8]
    assert session.ledger["gates"] == 2
    assert session.certificate is not None
    assert session.certificate["passed"] is True
    assert session.input_shape == ("batch", 3, 8, 8)
    assert session.class_count == 5
    assert session.metadata.weights_sha256 == "0" * 64


@pytest.mark.parametrize("kind", [np.float16, np.float64, ">f4"])
def test_other_floats_are_converted(session: Session, kind: Any) -> None:
    x = picture().astype(kind)
    same = session(x.astype(np.float32), [1, 2])
    np.testing.assert_array_equal(session(x, [1, 2]).logits, same.logits)


def test_strided_input(session: Session) -> None:
    x = picture(BATCH, handmade.SIZE, handmade.SIZE, 3).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(session(x, [1, 2]).logits, session(np.ascontiguousarray(x), [1, 2]).logits)


def test_large_finite_values_are_no_reason_to_refuse(session: Session) -> None:
    """Their sum of squares overflows; the values themselves do not."""
    x = picture()
    x[0, 1, 2, 3] = np.float32(3e38)
    np.testing.assert_allclose(session(x, [1, 2]).logits[1], x[1].mean((1, 2)) @ handmade.weight(), atol=1e-6)


def spoiled(value: float) -> handmade.Array:
    x = picture()
    x[1, 2, 3, 4] = value
    return x


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (picture(3, 8, 8), r"\(3, 8, 8\).*\[batch, 3, 8, 8\].*x\[None\]"),
        (picture(2, 3, 8, 9), r"\(2, 3, 8, 9\).*\[batch, 3, 8, 8\]"),
        (picture(2, 8, 8, 3), r"Channels come first"),
        (picture(0, 3, 8, 8), "holds no data"),
        (np.zeros(SHAPE, np.uint8), r"uint8.*scaled to \[-1, 1\].*127\.5"),
        (np.zeros(SHAPE, bool), "bool"),
        (np.zeros(SHAPE, complex), "complex"),
        ("zebra.jpg", "the type is"),
        ([[1.0], [1.0, 2.0]], "array"),
        (spoiled(np.nan), r"1 of 384 values are NaN or infinite, the first at \(1, 2, 3, 4\)"),
        (spoiled(np.inf), "NaN or infinite"),
        (spoiled(-np.inf), "NaN or infinite"),
        (picture().astype(np.float64) * 1e300, "NaN or infinite"),
    ],
)
def test_bad_input(session: Session, x: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        session(x, np.zeros(BATCH, np.int64))


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("index", None, r"needs one.*shape \(2,\).*0 to 4"),
        ("index", [0, 5], "no class 5; the model has 5 classes, 0 to 4"),
        ("index", [-1, 0], "no class -1"),
        ("index", [0.0, 1.0], "float64"),
        ("index", [True, False], "bool"),
        ("index", ["zebra", "bee"], "the type is"),
        ("index", [1], r"shape is \(1,\)"),
        ("index", 1, r"shape is \(\)"),
        ("index", [[1, 2], [1, 2]], r"shape is \(2, 2\)"),
        ("contrast", [1, 2], r"integers of shape \(2, 2\)"),
        ("contrast", [[1, 2], [1, 7]], "no class 7"),
        ("cotangent", [1, 2], r"floating point of shape \(2, 5\)"),
        ("cotangent", np.zeros((2, 4), np.float32), r"shape is \(2, 4\)"),
        ("cotangent", np.full((2, 5), np.nan), "NaN"),
        ("top1", [1, 2], "none is taken"),
    ],
)
def test_bad_target(files: dict[str, Path], name: str, target: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Session(files[name])(picture(), target)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"nothing\.onnx: there is no such file.*fxpullback compile"):
        Session(tmp_path / "nothing.onnx")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="this is a folder"):
        Session(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    with pytest.raises(SessionError, match="the file is empty"):
        Session(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file(files: dict[str, Path], tmp_path: Path, share: float) -> None:
    whole = files["index"].read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SessionError, match=r"cut\.onnx: .*(truncated|cut short)"):
        Session(path)


@pytest.mark.parametrize("content", [b"hello world" * 20, b"\x89PNG\r\n" * 50, bytes(1000)])
def test_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(SessionError, match="no whole ONNX file"):
        Session(path)


def test_foreign_file(tmp_path: Path) -> None:
    made = handmade.model()
    del made.metadata_props[:]
    onnx.save(made, tmp_path / "foreign.onnx")
    with pytest.raises(SessionError, match=r"not written by fxpullback.*fxpullback compile"):
        Session(tmp_path / "foreign.onnx")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ledger": None}, r"lacks the metadata fxpullback\.ledger"),
        ({"ledger": "{"}, r"fxpullback\.ledger is not valid JSON"),
        ({"classes": "{}"}, r"fxpullback\.classes is a JSON dict, where a list belongs"),
        ({"target": "both"}, r"fxpullback\.target is 'both'"),
        ({"target": "top1"}, r"takes input, target.*promises input and"),
        ({"program": '{"name": "ascent"}'}, "promises input, target and logits, pullback, counterfactual"),
    ],
)
def test_damaged_metadata(tmp_path: Path, changes: dict[str, str | None], words: str) -> None:
    path = handmade.write(tmp_path / "damaged.onnx", changes=changes)
    with pytest.raises(SessionError, match=words):
        Session(path)


@pytest.mark.parametrize("keep", [0, 10])
def test_external_data(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "split.onnx"
    onnx.save(handmade.model(), path, save_as_external_data=True, location="split.data", size_threshold=80)
    Session(path)
    data = tmp_path / "split.data"
    if keep:
        data.write_bytes(data.read_bytes()[:keep])
    else:
        data.unlink()
    with pytest.raises(SessionError, match="external data with its weights is missing or cut short"):
        Session(path)


def test_loads_without_a_warning(files: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Session(files["ascent"])
    assert capfd.readouterr() == ("", "")


def test_gpu_asked_for_and_absent(files: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    if providers.gpu_present():
        pytest.skip("this machine has a GPU")
    with pytest.warns(
        ProviderWarning, match=r"CUDAExecutionProvider was asked for and is not used.*Running on CPU"
    ) as seen:
        session = Session(files["index"], providers=["CUDAExecutionProvider"])
    assert seen[0].filename == __file__
    assert session.providers == ("CPUExecutionProvider",)
    assert capfd.readouterr() == ("", "")


def test_gpu_that_does_not_start(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = ort.InferenceSession

    def broken(path: str, *, providers: list[str], **options: Any) -> ort.InferenceSession:
        if providers != ["CPUExecutionProvider"]:
            raise RuntimeError("CUDA driver version is insufficient")
        return real(path, providers=providers, **options)

    monkeypatch.setattr(ort, "InferenceSession", broken)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(providers, "gpu_present", lambda: True)
    monkeypatch.setattr(providers, "_preload", lambda: None)
    with pytest.warns(ProviderWarning, match=r"a GPU is here, but CUDA.*driver version is insufficient Running on CPU"):
        assert Session(files["index"]).providers == ("CPUExecutionProvider",)


def test_unknown_provider(files: dict[str, Path]) -> None:
    with pytest.raises(SessionError, match=r"provider 'abacus'.*Offered here: .*cpu"):
        Session(files["index"], providers=["abacus"])
    with pytest.raises(SessionError, match="pass a list"):
        Session(files["index"], providers="CUDAExecutionProvider")


def test_short_provider_names() -> None:
    assert providers.full_name("cuda") == "CUDAExecutionProvider"
    assert providers.full_name("CPU") == "CPUExecutionProvider"
    assert providers.full_name("openvino") == "OpenVINOExecutionProvider"

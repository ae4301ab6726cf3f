"""Bound buffers, CUDA graphs and TensorRT's options, as far as a machine without a GPU goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from fxpullback.contract.errors import InputError, SessionError
from fxpullback.export import Session, tensorrt
from fxpullback.export.runtime import binding, providers
from fxpullback.export.runtime import onnx_file as runtime
from fxpullback.export.runtime.binding import Bound
from fxpullback.export.runtime.tensorrt import profile
from tests.export import handmade

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bound")
    made = {name: handmade.write(folder / f"{name}.onnx", name) for name in ("index", "top1", "cotangent", "contrast")}
    return made | {"ascent": handmade.write(folder / "ascent.onnx", "index", "ascent")}


def given(name: str, batch: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(batch)
    x = generator.normal(size=(batch, 3, handmade.SIZE, handmade.SIZE)).astype(np.float32)
    target = {
        "top1": None,
        "contrast": generator.integers(0, 5, (batch, 2)),
        "cotangent": generator.normal(size=(batch, 5)),
    }.get(name, generator.integers(0, 5, batch))
    return x, target


@pytest.mark.parametrize("name", ["index", "top1", "cotangent", "contrast", "ascent"])
def test_bound_buffers_return_the_same(files: dict[str, Path], name: str) -> None:
    plain, bound = Session(files[name], providers=["cpu"]), Session(files[name], providers=["cpu"], io_binding=True)
    assert isinstance(bound._run, Bound)
    for batch in (1, 3, 1, 2):
        one, other = plain(*given(name, batch)), bound(*given(name, batch))
        for field in ("logits", "pullback", *(("counterfactual", "counterfactual_logits") if name == "ascent" else ())):
            np.testing.assert_array_equal(getattr(other, field), getattr(one, field))


def test_a_result_is_not_overwritten_by_the_next_call(files: dict[str, Path]) -> None:
    session = Session(files["index"], providers=["cpu"], io_binding=True)
    x, target = given("index", 2)
    first = session(x, target)
    kept = first.logits.copy(), first.pullback.copy()
    second = session(-x, (target + 1) % 5)
    np.testing.assert_array_equal(first.logits, kept[0])
    np.testing.assert_array_equal(first.pullback, kept[1])
    assert not np.array_equal(second.logits, first.logits)
    first.pullback[:] = 7.0  # the caller's own, to be written to
    assert not np.array_equal(session(x, target).pullback, first.pullback)


@pytest.mark.parametrize("order", ["F", "transposed"])
def test_strided_inputs_are_copied_right(files: dict[str, Path], order: str) -> None:
    plain, bound = (
        Session(files["index"], providers=["cpu"]),
        Session(files["index"], providers=["cpu"], io_binding=True),
    )
    x, target = given("index", 2)
    strided = np.asfortranarray(x) if order == "F" else x.transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(bound(strided, target).logits, plain(strided, target).logits)


def test_bound_buffers_check_like_all_others(files: dict[str, Path]) -> None:
    session = Session(files["index"], providers=["cpu"], io_binding=True)
    with pytest.raises(InputError, match="NaN or infinite"):
        session(np.full((1, 3, 8, 8), np.nan, np.float32), [0])
    with pytest.raises(InputError, match="no class 5"):
        session(np.zeros((1, 3, 8, 8), np.float32), [5])


def test_old_shapes_make_room(files: dict[str, Path]) -> None:
    session = Session(files["index"], providers=["cpu"], io_binding=True)
    bound: Any = session._run
    for batch in (*range(1, binding.KEPT + 3), 1):
        session(*given("index", batch))
    assert [shapes[0][0] for shapes in bound._sets] == [*range(4, binding.KEPT + 3), 1]


def test_a_dimension_that_no_input_has(files: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(files["index"])
    model.graph.output[1].type.tensor_type.shape.dim[2].dim_param = "rows"
    onnx.save(model, tmp_path / "odd.onnx")
    session = Session(tmp_path / "odd.onnx", providers=["cpu"], io_binding=True)
    with pytest.raises(SessionError, match=r"pullback has the free dimension rows.*io_binding=False"):
        session(*given("index", 1))


class Recorder:
    """A session on the CPU that passes for CUDA and notes which graph was run, and by which thread."""

    def __init__(self, path: str, *, providers: list[Any], **options: Any) -> None:
        self.real = ort_session(path, providers=[CPU], **options)
        self.given = providers
        self.runs: list[tuple[str | None, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {CUDA: {"device_id": "0"}, CPU: {}}

    def io_binding(self) -> Any:
        return self.real.io_binding()

    def run_with_iobinding(self, bound: Any, options: Any) -> None:
        try:
            graph = options.get_run_config_entry("gpu_graph_id")
        except RuntimeError:
            graph = None
        self.runs.append((graph, threading.get_ident()))
        self.real.run_with_iobinding(bound, options)


ort_session = ort.InferenceSession


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Session], Recorder]:
    """Make believe there is a GPU; returns the stand-in behind a session."""
    monkeypatch.setattr(ort, "InferenceSession", Recorder)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(providers, "gpu_present", lambda: True)
    monkeypatch.setattr(providers, "_preload", lambda: None)
    monkeypatch.setattr(runtime, "BUFFERS", "cpu")
    return lambda session: session._run._session  # type: ignore[attr-defined]


def test_cuda_binds_by_itself(files: dict[str, Path], gpu: Callable[[Session], Recorder]) -> None:
    session = Session(files["index"])
    session(*given("index", 2))
    assert gpu(session).given == [CUDA, CPU]
    assert [graph for graph, _ in gpu(session).runs] == [None]
    assert not isinstance(Session(files["index"], io_binding=False)._run, Bound)


def test_one_graph_for_each_shape_and_one_thread_for_all(
    files: dict[str, Path], gpu: Callable[[Session], Recorder]
) -> None:
    session, plain = Session(files["index"], cuda_graph=True), ort_session(files["index"], providers=[CPU])
    for batch in (1, 4, 1, 2, 4):
        x, target = given("index", batch)
        found = session(x, target)
        np.testing.assert_array_equal(found.pullback, plain.run(["pullback"], {"input": x, "target": target})[0])
    assert gpu(session).given == [(CUDA, {"enable_cuda_graph": "1"}), CPU]
    assert [graph for graph, _ in gpu(session).runs] == ["1", "2", "1", "3", "2"]
    (thread,) = {thread for _, thread in gpu(session).runs}
    assert thread != threading.get_ident()


def test_graphs_for_some_batch_sizes(files: dict[str, Path], gpu: Callable[[Session], Recorder]) -> None:
    session = Session(files["index"], providers=[("cuda", {"device_id": 0})], cuda_graph=(1, 4))
    for batch in (3, 1, 4, 3, *range(5, 6 + binding.KEPT), 1):
        session(*given("index", batch))
    assert [graph for graph, _ in gpu(session).runs] == ["-1", "1", "2", "-1", *["-1"] * (1 + binding.KEPT), "1"]
    assert gpu(session).given[0] == (CUDA, {"device_id": 0, "enable_cuda_graph": "1"})


def test_the_option_of_the_provider_says_the_same(files: dict[str, Path], gpu: Callable[[Session], Recorder]) -> None:
    session = Session(files["index"], providers=[("cuda", {"enable_cuda_graph": True})])
    session(*given("index", 1))
    assert gpu(session).runs[0][0] == "1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"providers": ["cpu"], "cuda_graph": True}, "CPUExecutionProvider comes first, and CUDA graphs"),
        ({"providers": ["tensorrt", "cuda"], "cuda_graph": True}, "TensorrtExecutionProvider comes first"),
        ({"cuda_graph": (0,)}, r"pass True, or the batch sizes to record, such as \(1, 8\)"),
        ({"cuda_graph": True, "io_binding": False}, "recorded of bound buffers alone"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_graphs_that_cannot_be(files: dict[str, Path], options: dict[str, Any], words: str) -> None:
    with pytest.raises(SessionError, match=words):
        Session(files["index"], **options)


def test_graphs_without_a_gpu(files: dict[str, Path]) -> None:
    if providers.gpu_present():
        pytest.skip("this machine has a GPU")
    for options in ({"cuda_graph": True}, {"providers": ["cuda"], "cuda_graph": (1,)}):
        with pytest.raises(SessionError, match=r"cuda_graph: .*Leave cuda_graph out to run without"):
            Session(files["index"], **options)


@pytest.mark.usefixtures("gpu")
def test_a_model_that_cannot_be_recorded_is_an_error(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str, *, providers: list[Any], **options: Any) -> ort.InferenceSession:
        if providers != [CPU]:
            raise RuntimeError("not all nodes have been partitioned to the CUDAExecutionProvider")
        return ort_session(path, providers=providers, **options)

    monkeypatch.setattr(ort, "InferenceSession", broken)
    with pytest.raises(SessionError, match=r"no CUDA graphs can be recorded.*not all nodes have been partitioned"):
        Session(files["index"], cuda_graph=True)


def test_tensorrt_profiles(files: dict[str, Path]) -> None:
    name, options = tensorrt(files["index"], (8, 1, 32), cache="engines", trt_fp16_enable=True)
    assert name == "TensorrtExecutionProvider"
    assert options == {
        "trt_profile_min_shapes": "input:1x3x8x8,target:1",
        "trt_profile_opt_shapes": "input:8x3x8x8,target:8",
        "trt_profile_max_shapes": "input:32x3x8x8,target:32",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "engines",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "engines",
        "trt_fp16_enable": "1",
    }
    assert tensorrt(files["top1"], (4,))[1]["trt_profile_min_shapes"] == "input:4x3x8x8"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"batch": (1,), "height": (8,)}, "the sizes of batch, .* given those of batch, height"),
        ({}, "needs the sizes of batch"),
        ({"batch": ()}, "positive numbers are wanted"),
        ({"batch": (0, 1)}, "positive numbers are wanted"),
    ],
)
def test_tensorrt_profiles_that_are_none(files: dict[str, Path], sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(SessionError, match=words):
        profile(Session(files["index"], providers=["cpu"]).inputs, sizes)

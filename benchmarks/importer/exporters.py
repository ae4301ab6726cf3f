"""Small networks of Keras and scikit-learn with random weights or trained on digits, written by their own exporters.

`python benchmarks/importer/exporters.py FOLDER`, in an environment of its own: `pip install tensorflow-cpu tf2onnx` for
those of Keras, `pip install scikit-learn skl2onnx` for the others. What is not installed is left out. It writes the
files, and what is to be said of them into FOLDER/files.json.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def convolutions(keras: Any) -> tuple[Any, Any]:
    """Separable convolutions, squeeze and excitation, channels last."""
    layers = keras.layers
    given = layers.Input((64, 64, 3))
    h = layers.Conv2D(16, 3, 2, padding="same", use_bias=False)(given)
    h = layers.Activation("swish")(layers.BatchNormalization()(h))
    for width in (32, 64):
        h = layers.SeparableConv2D(width, 3, padding="same", activation="relu")(h)
        h = layers.MaxPooling2D(2)(h)
        s = layers.GlobalAveragePooling2D(keepdims=True)(h)
        s = layers.Dense(width // 4, activation=lambda t: keras.activations.gelu(t, approximate=True))(s)
        h = layers.Multiply()([h, layers.Dense(width, activation="hard_sigmoid")(s)])
    h = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(h))
    return keras.Model(given, layers.Dense(10, activation="softmax")(h)), ((None, 64, 64, 3), "float32")


def transformer(keras: Any) -> tuple[Any, Any]:
    """Two blocks of attention over a sequence."""
    layers = keras.layers
    h = given = layers.Input((24, 32))
    for _ in range(2):
        a = layers.MultiHeadAttention(4, 8)(h, h)
        h = layers.LayerNormalization()(layers.Add()([h, a]))
        f = layers.Dense(64, activation=lambda t: keras.activations.gelu(t, approximate=True))(h)
        h = layers.LayerNormalization()(layers.Add()([h, layers.Dense(32)(f)]))
    return keras.Model(given, layers.Dense(5)(layers.GlobalAveragePooling1D()(h))), ((None, 24, 32), "float32")


def recurrent(keras: Any) -> tuple[Any, Any]:
    """Ids, LSTM both ways, GRU: the latter becomes a loop in the file."""
    layers = keras.layers
    given = layers.Input((20,), dtype="int32")
    h = layers.Bidirectional(layers.LSTM(12, return_sequences=True))(layers.Embedding(100, 16)(given))
    return keras.Model(given, layers.Dense(4)(layers.GRU(10)(h))), ((None, 20), "int32")


KERAS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "keras_conv": convolutions,
    "keras_transformer": transformer,
    "keras_recurrent": recurrent,
}


def of_keras(folder: Path) -> dict[str, Any]:
    """The networks of Keras, by tf2onnx."""
    import keras

    drawn, said = np.random.default_rng(0), dict[str, Any]()
    for name, make in KERAS.items():
        keras.utils.set_random_seed(0)
        model, (shape, dtype) = make(keras)
        for weight in model.weights:
            if "moving_variance" in weight.path:
                weight.assign(drawn.uniform(0.5, 1.5, weight.shape))
        signature = [keras.InputSpec(shape=shape, dtype=dtype)]
        model.export(folder / f"{name}.onnx", format="onnx", input_signature=signature, verbose=False)
        said[f"{name}.onnx"] = {"source": f"exporters.py, keras {version('keras')}"}
    said["keras_recurrent.onnx"]["at"] = "embeddings"
    return said


def of_sklearn(folder: Path) -> dict[str, Any]:
    """A network and a logistic regression behind a scaler, trained on digits, by skl2onnx."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_digits(return_X_y=True)
    heads = {
        "skl_mlp_digits": (MLPClassifier((64, 32), max_iter=300, random_state=0), "add_result2"),
        "skl_logistic_digits": (LogisticRegression(max_iter=1000), "probabilities"),
    }
    said = {}
    for name, (head, logits) in heads.items():
        model = make_pipeline(StandardScaler(), head).fit(x.astype(np.float32), y)
        made = to_onnx(model, x[:1].astype(np.float32), options={id(model): {"zipmap": False}})
        (folder / f"{name}.onnx").write_bytes(made.SerializeToString())
        source = f"exporters.py, scikit-learn {version('scikit-learn')}"
        said[f"{name}.onnx"] = {"source": source, "logits": logits}
    return said


def main(folder: Path) -> None:
    """Write what the installed packages can write."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "files.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    for package, make in (("keras", of_keras), ("skl2onnx", of_sklearn)):
        if importlib.util.find_spec(package) is not None:
            said |= make(folder)
    path.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

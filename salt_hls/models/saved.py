"""What a saved Keras model would run while it is loaded, found before Keras loads it.

Loading a model executes what its configuration names: the bytecode of a Lambda layer, TensorFlow
functions, classes and functions of any module that can be imported. Keras' safe mode guards only
a part of that, and only `.keras` files. Here the configuration is read as data.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from salt_hls.errors import UserError

MODULES = ("keras", "tf_keras", "qkeras", "salt_hls")
"""Packages whose classes a model may consist of."""

LAMBDAS = ("Lambda", "__lambda__")
OPERATIONS = (
    "TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer",
    "ClassMethod", "InstanceMethod", "InstanceProperty",
)  # fmt: skip
"""Keras' layers around any function of TensorFlow, called by name."""


def check_no_code(path: Path) -> dict[str, str]:
    """The classes of a saved model's layers by their names, models inside it included.

    Raises `UserError` when loading the model would run code, and for a file without a
    configuration that can be read: Keras is not given a file that was not looked at.
    """
    try:
        config = _configuration(path)
        _check(config, path.stem)
        return dict(_layers(config))
    except UserError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    except Exception as error:  # whatever a damaged file provokes
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: not a Keras model that can be read ({reason})") from None


def _configuration(path: Path) -> Any:
    """The configuration that Keras would load; it takes the format from name and content."""
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        config.pop("compile_config", None)  # not loaded: models are loaded without compiling
        return config
    with h5py.File(path) as file:
        text = file.attrs.get("model_config")
    if text is None:
        raise UserError("holds no model (weights alone?); save it with model.save()")
    return json.loads(text)


def _check(node: Any, layer: str) -> None:
    """Walks a configuration. layer: name of the innermost layer around `node`."""
    if isinstance(node, dict):
        config = node.get("config")
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            layer = config["name"]
        if isinstance(config, dict) and isinstance(config.get("alpha"), dict):
            # An array, which QKeras writes but cannot read.
            raise UserError(
                f"layer {layer}: quantizer {_class(node)} scales each channel; give alpha=1"
            )
        if code := _code(node):
            raise UserError(
                f"layer {layer}: {code}, which is not run; build the model of Keras, QKeras and "
                "SAL-T layers only"
            )
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            _check(child, layer)


def _layers(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for layer in node["config"].get("layers", ()):
        yield layer["config"]["name"], _class(layer)
        yield from _layers(layer)


def _class(node: dict[str, Any]) -> str:
    """The name of a class without its module or package."""
    return re.split(r"[.>]", str(node.get("class_name", "")))[-1]


def _code(node: dict[str, Any]) -> str | None:
    """What an object in a configuration would run, in words; `None` for plain data and classes."""
    kind = _class(node)
    if kind in LAMBDAS or any(k.endswith("_type") and v == "lambda" for k, v in node.items()):
        return "a Lambda holds Python code"
    if kind in OPERATIONS:
        config = node["config"] if isinstance(node.get("config"), dict) else {}
        called = config.get("function") or config.get("method_name") or kind
        return f"it calls the TensorFlow function {called}"
    module = node.get("module")
    if kind == "function":
        return f"it calls the function {module}.{node.get('config')}"
    if "class_name" in node and module and str(module).partition(".")[0] not in MODULES:
        return f"{kind} is Python code of the module {module}"
    return None

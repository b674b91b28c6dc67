"""A function on variables as a StableHLO program whose state is passed in and out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

# The oldest version of the format that holds what is written here.
VERSION = "1.0.0"

_STRING = r'"(?:[^"\\]|\\.)*"'
_LOCATION = re.compile(rf' loc\((?:[^()"]|{_STRING}|\((?:[^()"]|{_STRING})*\))*\)')


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function.

    Attributes:
      bytecode: a portable StableHLO artifact with one public function, `main`.
      arguments, results: of `main`, in order: name -> (shape, dtype).
      values: name -> the value of an argument that is no input: variables, constants.
    """

    bytecode: bytes
    arguments: dict[str, tuple[list[int], str]]
    results: dict[str, tuple[list[int], str]]
    values: dict[str, tf.Tensor]


def export(
    function: Callable[..., Mapping[str, tf.Tensor]],
    inputs: Mapping[str, tf.TensorSpec],
    variables: Mapping[str, keras.Variable],
    *,
    updates: bool,
) -> Program:
    """Compiles a function for any device.

    What it reads of variables and of tensors made before becomes an argument after the
    inputs.

    Args:
      function: tensors in the order of `inputs` -> results by name; may assign.
      inputs: names, static shapes and dtypes.
      variables: by the names of their arguments. What else the function reads is called
        `unsaved/NNNN`.
      updates: the new values of `variables` follow the function's own results.

    Raises:
      ValueError: XLA cannot compile the function.
    """
    names: list[str] = []

    def traced(*tensors: tf.Tensor) -> list[tf.Tensor]:
        results = dict(function(*tensors))
        if updates:
            results |= {name: tf.identity(v.value) for name, v in variables.items()}
        names[:] = results
        return list(results.values())

    compiled = tf.function(traced, jit_compile=True, autograph=False)
    concrete = compiled.get_concrete_function(*inputs.values())
    known = {id(v.value.handle): (name, v.value) for name, v in variables.items()}
    others = {id(v.handle): v for v in concrete.variables}
    arguments = {name: (spec.shape, spec.dtype) for name, spec in inputs.items()}
    values: dict[str, tf.Tensor] = {}
    for index, captured in enumerate(concrete.captured_inputs):
        name, value = known.get(id(captured)) or (
            f"unsaved/{index:04d}",
            others.get(id(captured), captured),
        )
        value = tf.convert_to_tensor(value)
        values[name] = value
        arguments[name] = (value.shape, value.dtype)
    outputs = zip(names, concrete.outputs, strict=True)
    results = {name: (output.shape, output.dtype) for name, output in outputs}
    text = compiled.experimental_get_compiler_ir(*inputs.values())(stage="stablehlo")
    return Program(
        _portable(text, len(arguments), len(results)),
        {name: _described(*kind) for name, kind in arguments.items()},
        {name: _described(*kind) for name, kind in results.items()},
        values,
    )


def _described(shape: tf.TensorShape, dtype: tf.DType) -> tuple[list[int], str]:
    return shape.as_list(), dtype.name


def _portable(text: str, arguments: int, results: int) -> bytes:
    """TensorFlow's StableHLO as an artifact that other versions and programs read.

    Left out: locations, which name source files; attributes and operations of the
    dialect mhlo, of which only a copy occurs; and the results of `main` behind the
    first ones, which are the assigned variables.
    """
    # Here: TensorFlow's own bindings, which its other modules do not need.
    from tensorflow.compiler.mlir.stablehlo import stablehlo

    text = re.sub(r"^#loc\d* = .*\n", "", text, flags=re.MULTILINE)
    text = _LOCATION.sub("", text)
    text = re.sub(
        r"= mhlo\.copy (%\S+) : (.*)$",
        r"= stablehlo.reshape \1 : (\2) -> \2",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"^module .*\{$", "module @program {", text, flags=re.MULTILINE)
    before, main = re.split(r"(?=^  func\.func (?:public )?@main\()", text, flags=re.M)
    head, _, body = main.partition("\n")
    left, _, right = head.partition(") -> ")
    kinds = right.removesuffix(" {").strip("()").split(", ")
    if left.count("%arg") != arguments or len(kinds) < results:
        raise ValueError(
            f"Invalid function: received one of {left.count('%arg')} arguments and "
            f"{len(kinds)} results, accepted: of {arguments} and at least {results}."
        )
    start = body.rindex("\n    return ")
    returned, _, after = body[start:].partition(" : ")
    places = returned.removeprefix("\n    return ").split(", ")[:results]
    kept = ", ".join(kinds[:results])
    _, _, rest = after.partition("\n")
    main = f"{left}) -> ({kept}) {{\n{body[:start]}\n    return {', '.join(places)}"
    main += f" : {kept}\n{rest}"
    return stablehlo.serialize_portable_artifact_str(before + main, VERSION)

"""Linears of a shape by our kernels, OpenVINO and ONNX Runtime: the same numbers, the same inputs, one after the other.

Each class is a peer for `peer_process`: `info` says what it is, `time` runs the whole stack once and again. Every
matrix writes an output of its own, in all of them. Before anything is timed, some outputs of every matrix are compared
with the exact product; a runtime that computes something else takes no part.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from foretoken.bench.peer_process import own_version, steady
from foretoken.bench.peer_stack import Matrix, dequantised, inputs, packed, stack
from foretoken.ops import native

SAMPLE = 4  # outputs of every matrix that are compared
MAX_ERROR = 0.03  # of the largest of them; activations in 8 bits cost about 0.01
Arrays = list[np.ndarray]


class Linears:
    """What the three share: the stack, its inputs, what a sample of the outputs must be.

    shape, layers  see `stack`
    bits, group    codes, and inputs that a scale covers
    max_rows       most rows of a pass
    """

    def __init__(self, shape: str, layers: int | None, bits: int, group: int, threads: int, max_rows: int) -> None:
        self.matrices, left_out = stack(shape, layers, group)
        if not self.matrices:
            raise ValueError(f"groups of {group} divide the inputs of no matrix of shape {shape}")
        self.bits, self.group, self.threads = bits, group, threads
        self._inputs = inputs(self.matrices, max_rows)
        self._expected: list[np.ndarray] = []
        self.info = {
            "matrices": len(self.matrices),
            "left_out": len(left_out),
            "weights": sum(matrix.n * matrix.k for matrix in self.matrices),
            **self.open(),
        }
        self.info |= {"error": self.checked(max_rows), "kernel": self.kernel()}

    def open(self) -> dict[str, Any]:
        """Build everything out of `numbers` of each matrix; version and bits_per_weight for `info`."""
        raise NotImplementedError

    def kernel(self) -> str:
        """What multiplies, as the runtime names it; asked after a pass."""
        raise NotImplementedError

    def run(self, rows: int) -> Callable[[], object]:
        """A function that runs the stack over so many rows; all that can be done before is done."""
        raise NotImplementedError

    def outputs(self, rows: int) -> Arrays:
        """(rows, N) of every matrix after that."""
        raise NotImplementedError

    def numbers(self, matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
        """Codes and scales; called once for each matrix, in order."""
        codes, scales = matrix.numbers(self.bits, self.group)
        self._expected.append(dequantised(codes[:SAMPLE], scales[:SAMPLE], self.bits).astype(np.float64))
        return codes, scales

    def x(self, width: int, rows: int) -> np.ndarray:
        """(rows, width) float32, contiguous."""
        return self._inputs[width][:rows]

    def time(self, rows: int, calls: int) -> float:
        """Seconds of the whole stack."""
        return steady(self.run(rows), calls)

    def checked(self, rows: int) -> float:
        """Largest error over the largest output, of the sample; ValueError where the product is another."""
        self.run(rows)()
        errors = []
        for matrix, weights, out in zip(self.matrices, self._expected, self.outputs(rows), strict=True):
            exact = self.x(matrix.k, rows).astype(np.float64) @ weights.T  # (rows, SAMPLE)
            errors.append(np.abs(out[:, :SAMPLE] - exact).max() / np.abs(exact).max())
        worst = float(np.max(errors))  # a NaN stays one
        if not worst <= MAX_ERROR:
            raise ValueError(f"its products are off by {worst:.1%} of the largest, expected at most {MAX_ERROR:.0%}")
        return worst


class Foretoken(Linears):
    """Our kernels, q4 or q8 panels."""

    def open(self) -> dict[str, Any]:
        native.set_threads(self.threads)
        self._weights = []
        for matrix in self.matrices:
            self.numbers(matrix)
            self._weights.append(packed(matrix, self.bits))
        most = max(map(len, self._inputs.values()))
        self._outputs = [np.empty((most, matrix.n), np.float32) for matrix in self.matrices]
        num_bytes = sum(weight.data.nbytes for weight in self._weights)
        bits = 8 * num_bytes / sum(matrix.n * matrix.k for matrix in self.matrices)
        return {"version": own_version(), "bits_per_weight": bits}

    def kernel(self) -> str:
        return native.isa()

    def run(self, rows: int) -> Callable[[], object]:
        work = [
            (self.x(matrix.k, rows), weight, out)
            for matrix, weight, out in zip(self.matrices, self._weights, self.outputs(rows), strict=True)
        ]

        def once() -> None:
            for x, weight, out in work:
                native.linear(x, weight, out)

        return once

    def outputs(self, rows: int) -> Arrays:
        return [out[:rows] for out in self._outputs]


class OpenVino(Linears):
    """OpenVINO's CPU plugin: compressed weights, activations quantised in groups of as many inputs as the weights.

    signed   i4 or i8 weights without zero point; else u4 or u8 with one zero point for all
    """

    def __init__(self, signed: bool, **options: Any) -> None:
        self._signed = signed
        super().__init__(**options)

    def open(self) -> dict[str, Any]:
        openvino, ops = import_module("openvino"), import_module("openvino.opset13")
        self._new_tensor = openvino.Tensor
        # Constants refer to NumPy's memory, and a new row count may make the plugin read them again.
        self._alive: Arrays = []
        self._parameters = {width: ops.parameter([-1, width], np.float32, f"x{width}") for width in self._inputs}
        results = [
            ops.result(ops.matmul(self._parameters[matrix.k], self._weight(openvino, ops, matrix), False, True))
            for matrix in self.matrices
        ]
        model = openvino.Model(results, list(self._parameters.values()), "linears")
        properties = {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": self.group,
        }
        self._request = openvino.Core().compile_model(model, "CPU", properties).create_infer_request()
        return {
            "version": openvino.__version__.split("-")[0],
            "bits_per_weight": self.bits + 16 / self.group,  # the one zero point is nothing
        }

    def kernel(self) -> str:
        """Primitives of the products; a name with i8 or u8 in it says that activations are quantised."""
        names = set()
        for node in self._request.get_compiled_model().get_runtime_model().get_ops():
            info = node.get_rt_info()
            if info["layerType"].astype(str) == "FullyConnected":
                names.add(info["primitiveType"].astype(str))
        return " ".join(sorted(names)) or "no fused product"

    def _weight(self, openvino: Any, ops: Any, matrix: Matrix) -> Any:
        """The node that gives (N, K) float32: codes scaled by group; the plugin fuses it into the product."""
        codes, scales = self.numbers(matrix)
        groups = scales.shape[1]
        if self._signed:
            codes = codes ^ (0x88 if self.bits == 4 else 0x80)  # code − 8 or − 128 in two's complement
        types = openvino.Type  # its names are no strings that it takes: Type("i4") is int32, as in NumPy
        kind = {(4, True): types.i4, (4, False): types.u4, (8, True): types.i8, (8, False): types.u8}[
            self.bits, self._signed
        ]
        weight = ops.convert(self._constant(openvino, codes, [matrix.n, groups, self.group], kind), "f16")
        if not self._signed:
            zero = np.array([1 << (self.bits - 1)], np.uint8)
            weight = ops.subtract(weight, ops.convert(self._constant(openvino, zero, [], kind), "f16"))
        weight = ops.multiply(weight, self._constant(openvino, scales, [matrix.n, groups, 1], openvino.Type.f16))
        weight = ops.reshape(weight, ops.constant(np.array([matrix.n, matrix.k], np.int64)), False)
        return ops.convert(weight, "f32")

    def _constant(self, openvino: Any, data: np.ndarray, shape: list[int], kind: Any) -> Any:
        self._alive.append(data.reshape(-1))
        return openvino.op.Constant(openvino.Tensor(self._alive[-1], openvino.Shape(shape), kind))

    def run(self, rows: int) -> Callable[[], object]:
        for index, width in enumerate(self._parameters):
            self._request.set_input_tensor(index, self._new_tensor(self.x(width, rows)))
        return lambda: self._request.infer(share_outputs=True)

    def outputs(self, rows: int) -> Arrays:
        return [self._request.get_output_tensor(index).data for index in range(len(self.matrices))]


class OnnxRuntime(Linears):
    """ONNX Runtime's MatMulNBits with accuracy level 4: activations in 8 bits. Its scales are float32 here."""

    def open(self) -> dict[str, Any]:
        runtime, onnx = import_module("onnxruntime"), import_module("onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        self._alive: dict[str, Any] = {}
        nodes, tensors = [], []
        for matrix in self.matrices:
            nodes.append(self._node(onnx.helper, matrix))
            codes, scales = self.numbers(matrix)
            blocks = codes.reshape(*scales.shape, -1)
            for name, data in ((f"b{matrix.index}", blocks), (f"s{matrix.index}", scales.astype(np.float32))):
                self._alive[name] = runtime.OrtValue.ortvalue_from_numpy(data)
                tensors.append(_in_memory(onnx, name, data))
        options.add_external_initializers(list(self._alive), list(self._alive.values()))
        model = self._model(onnx, nodes, tensors)
        self._session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        most = max(map(len, self._inputs.values()))
        self._outputs = [np.empty((most, matrix.n), np.float32) for matrix in self.matrices]
        return {
            "version": runtime.__version__,
            "bits_per_weight": self.bits + 32 / self.group,
        }

    def kernel(self) -> str:
        return f"MatMulNBits, {self.bits} bits, block {self.group}, accuracy level 4"

    def _node(self, helper: Any, matrix: Matrix) -> Any:
        names = [f"x{matrix.k}", f"b{matrix.index}", f"s{matrix.index}"]
        sizes = {"K": matrix.k, "N": matrix.n, "bits": self.bits, "block_size": self.group, "accuracy_level": 4}
        return helper.make_node("MatMulNBits", names, [f"y{matrix.index}"], domain="com.microsoft", **sizes)

    def _model(self, onnx: Any, nodes: list[Any], tensors: list[Any]) -> bytes:
        def value(name: str, width: int) -> Any:
            return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["T", width])

        found = [value(f"x{width}", width) for width in self._inputs]
        results = [value(f"y{matrix.index}", matrix.n) for matrix in self.matrices]
        graph = onnx.helper.make_graph(nodes, "linears", found, results, tensors)
        opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
        model: bytes = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
        return model

    def run(self, rows: int) -> Callable[[], object]:
        binding = self._session.io_binding()
        for width in self._inputs:
            binding.bind_cpu_input(f"x{width}", self.x(width, rows))
        for matrix, out in zip(self.matrices, self.outputs(rows), strict=True):
            binding.bind_output(f"y{matrix.index}", "cpu", 0, np.float32, out.shape, out.ctypes.data)
        return lambda: self._session.run_with_iobinding(binding)

    def outputs(self, rows: int) -> Arrays:
        return [out[:rows] for out in self._outputs]


def _in_memory(onnx: Any, name: str, data: np.ndarray) -> Any:
    """A tensor whose bytes the session gets beside the model, which may thus have more than 2 GB."""
    kinds = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}
    tensor = onnx.TensorProto(name=name, data_type=kinds[data.dtype.name], dims=data.shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="memory")
    return tensor

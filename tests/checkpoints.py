"""Safetensors files taken apart and put together by hand, so that tests can damage every byte of them."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np

from foretoken.errors import ShapeError
from foretoken.ops import reference
from foretoken.weights import FORMATS

GOLDEN = Path(__file__).parent / "golden"


def _can_pack(format):
    try:
        reference.pack(np.zeros((16, 32), np.float32), format, "panels")
    except ShapeError:
        return False
    return True


PACKABLE = [format for format in FORMATS if _can_pack(format)]


def copy_of(name, folder):
    """A golden model folder that a test may damage."""
    return shutil.copytree(GOLDEN / name, folder / name)


def split(path):
    """(header, data) of a safetensors file."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def join(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def save(path, arrays):
    """Write {name: array}; uint16 arrays are stored as BF16."""
    names = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int64": "I64", "int8": "I8", "int32": "I32"}
    header, data = {}, b""
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    join(path, header, data)


def overwrite(path, tensor, value, index=0):
    """Change one stored value of a tensor; `value` are its bytes."""
    header, data = split(path)
    at = header[tensor]["data_offsets"][0] + index * len(value)
    join(path, header, data[:at] + value + data[at + len(value) :])

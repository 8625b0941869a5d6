"""Arrays and tensors as flat memory: what can be sent, received into and reduced.

Must never import torch: a tensor is known by the module that made it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from zray.util.collective.types import ReduceOp

_FOLDS: dict[ReduceOp, Any] = {
    ReduceOp.SUM: np.add,
    ReduceOp.PRODUCT: np.multiply,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
}
Flat = Any  # a numpy array of one dimension, contiguous


def fold_of(op: ReduceOp) -> Any:
    """``fold(a, b, out=a)`` of that way to reduce.

    Raises:
        TypeError: it is no ReduceOp.
    """
    if op not in _FOLDS:
        raise TypeError(f"op must be a ReduceOp, got {op!r}")
    return _FOLDS[op]


def check(tensor: Any) -> None:
    """Whether it is an array or tensor at all.

    Raises:
        RuntimeError: it is something else.
    """
    if not isinstance(tensor, np.ndarray) and not _is_torch(tensor):
        raise RuntimeError(
            f"Unrecognized tensor type '{type(tensor)}'. Supported types are: np.ndarray, "
            "torch.Tensor."
        )


def check_list(tensors: Any) -> None:
    """The same of a list of them, which is not empty."""
    if not isinstance(tensors, list):
        raise RuntimeError(f"The input must be a list of tensors. Got '{type(tensors)}'.")
    if not tensors:
        raise RuntimeError("Got an empty list of tensors.")
    for tensor in tensors:
        check(tensor)


def read(tensor: Any, *, reduced: bool = False) -> Flat:
    """Its elements, to be sent; a copy where they do not lie side by side.

    Raises:
        TypeError: it is not in host memory, or of elements that cannot be sent, or (``reduced``)
            not put together.
    """
    return np.ascontiguousarray(_array(tensor, reduced)).reshape(-1)


class Target:
    """A tensor whose elements are to be replaced: ``flat`` until ``store``."""

    def __init__(self, tensor: Any, *, reduced: bool = False) -> None:
        array = _array(tensor, reduced)
        if not array.flags.writeable:
            raise ValueError(
                "the array is read-only, as what zray.get returns is, and the result is written "
                "into it; pass a copy: array.copy()"
            )
        self._array = array
        self.flat: Flat = np.ascontiguousarray(array).reshape(-1)

    def store(self) -> None:
        """Put the elements where they belong."""
        if not self._array.flags.c_contiguous:
            self._array[...] = self.flat.reshape(self._array.shape)


def view(flat: Flat) -> memoryview:
    """Its bytes."""
    return memoryview(flat.view(np.uint8)) if flat.size else memoryview(b"")


def empty_like(flat: Flat, size: int) -> Flat:
    """Room for so many elements of that kind."""
    return np.empty(size, flat.dtype)


def _is_torch(tensor: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(tensor, torch.Tensor)


def _array(tensor: Any, reduced: bool) -> Any:
    if _is_torch(tensor):
        tensor = _of_torch(tensor, reduced)
    if tensor.dtype.hasobject or tensor.dtype.kind == "V":
        raise TypeError(f"elements of {tensor.dtype} are no numbers, and cannot be sent")
    if reduced and tensor.dtype.kind not in "biufc":
        raise TypeError(f"elements of {tensor.dtype} cannot be reduced; convert them to numbers")
    return tensor


def _of_torch(tensor: Any, reduced: bool) -> Any:
    """The array that shares a tensor's memory."""
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise TypeError(
            f"the tensor is on {tensor.device}, and zray's groups carry host memory; pass "
            "tensor.cpu(), and copy the result back"
        )
    tensor = tensor.detach()
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError):
        if reduced:
            raise TypeError(
                f"elements of {tensor.dtype} cannot be reduced here; convert them, for example "
                "with tensor.float()"
            ) from None
    return tensor.view(torch.int16 if tensor.element_size() == 2 else torch.uint8).numpy()

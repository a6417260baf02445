"""Numbers and vectors as people give them, checked and in the one form that the package uses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnsteer.errors import UserError
from nnsteer.program.show import shortened


def number(name: str, value: Any) -> float:
    """A threshold as a float, which may be infinite. Raises UserError, naming it, for what is no
    number."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
        given = shortened(repr(value).replace("\n", " "))
        raise UserError(f"{name} {given}: expected a number; give one, such as 1.0")
    return float(value)


def finite(name: str, value: Any) -> float:
    """A strength, a value or a factor as a float. Raises UserError, naming it, for what is no
    finite number."""
    given = number(name, value)
    if math.isinf(given):
        raise UserError(f"{name} {given}: expected a finite number; give one, such as 1.0")
    return given


def items_of(given: Any) -> tuple:
    """A mapping's values, the items of a list or other iterable, or the one thing given."""
    items = given.values() if isinstance(given, Mapping) else given
    many = isinstance(items, Iterable) and not isinstance(items, str | bytes | Tensor)
    return tuple(items) if many else (items,)


def vector_of(name: str, values: Any) -> Tensor:
    """A list, a numpy array or a tensor as a vector [hidden]: fp32, on the CPU, contiguous, apart
    from any graph, and with memory of its own. Raises UserError, naming it, for other shapes and
    for what isn't finite in fp32."""
    try:
        tensor = values.detach() if isinstance(values, Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        given = f"{name} is a {type(values).__name__}"
        raise UserError(f"{given}; expected [hidden]; give a list, array or tensor") from None
    if tensor.dim() != 1 or not len(tensor):
        given = f"{name} has shape {list(tensor.shape)}"
        raise UserError(f"{given}; expected [hidden]; give one row, such as rows[7]")
    if tensor.is_complex():
        raise UserError(f"{name} holds complex numbers; expected real ones; give its real part")
    vector = tensor.to("cpu", torch.float32, copy=True).contiguous()
    if bad := int((~vector.isfinite()).sum()):
        share = f"{bad} of {len(vector)} entries"
        raise UserError(f"{name} has {share} that are NaN or infinite in fp32; give finite ones")
    return vector

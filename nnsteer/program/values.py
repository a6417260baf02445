"""Numbers and vectors as people give them, checked and in the one form that the package uses."""

from __future__ import annotations

import math
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
        found = shortened(repr(value).replace("\n", " "))
        raise UserError(f"{name} {found}: expected a number; give one, such as 1.0")
    return float(value)


def finite(name: str, value: Any) -> float:
    """A strength, a value or a factor as a float. Raises UserError, naming it, for what is no
    finite number."""
    if math.isinf(found := number(name, value)):
        raise UserError(f"{name} {found}: expected a finite number; give one, such as 1.0")
    return found


def vector_of(name: str, values: Any) -> Tensor:
    """A list, a numpy array or a tensor as a vector [hidden]: fp32, on the CPU, contiguous, apart
    from any graph, and with memory of its own. Raises UserError, naming it, for other shapes and
    for what isn't finite in fp32."""
    try:
        tensor = values.detach() if isinstance(values, Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        kind = type(values).__name__
        raise UserError(f"{name} is a {kind}; expected [hidden]; give a list, array or tensor") from None
    if tensor.dim() != 1 or not len(tensor):
        shape = list(tensor.shape)
        raise UserError(f"{name} has shape {shape}; expected [hidden]; give one row, such as rows[7]")
    if tensor.is_complex():
        raise UserError(f"{name} holds complex numbers; expected real ones; give its real part")
    vector = tensor.to("cpu", torch.float32, copy=True).contiguous()
    if bad := int((~vector.isfinite()).sum()):
        share = f"{bad} of {len(vector)} entries"
        raise UserError(f"{name} has {share} that are NaN or infinite in fp32; give finite ones")
    return vector

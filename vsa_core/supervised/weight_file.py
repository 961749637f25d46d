"""How a model's weights are written: as they are, in 8 bits, or without their zeros

`int8` keeps linear layers of the encoders as int8 with a scale for each output, as
`backends.int8` computes with them; `sparse` keeps of a pruned tensor the values that are left and a
bit for each place. Everything else stays float32.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

STORED = ("float32", "int8", "sparse")
_SCALE, _VALUES, _KEPT = ".scale", ".values", ".kept"
# From this share of zeros on a bit for each place is worth it.
_ZEROS = 1 / 16


def packed(
    weights: Mapping[str, Tensor], stored: str, linear: Collection[str]
) -> dict[str, Tensor]:
    """A state as it is written.

    Args:
        weights: by name, on the CPU.
        stored: one of `STORED`.
        linear: names of what int8 brings to 8 bits, each (N, K).

    Returns:
        Contiguous tensors; in place of `W` int8 has `W` (N, K) int8 and `W.scale` (N,), sparse has
        `W.values` (V,) and `W.kept` uint8, a bit for each place, the first one highest.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if stored == "int8" and name in linear:
            scale = weight.abs().amax(dim=1).clamp_min(1e-12) / 127
            found[name] = (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
            found[name + _SCALE] = scale
        elif stored == "sparse" and _has_zeros(weight):
            flat = weight.flatten()
            found[name + _VALUES] = flat[flat != 0]
            found[name + _KEPT] = torch.from_numpy(np.packbits((flat != 0).numpy()))
        else:
            found[name] = weight.contiguous().clone()
    return found


def unpacked(
    written: Mapping[str, Tensor], described: Mapping[str, Tensor], stored: str
) -> dict[str, Tensor]:
    """The state that a file holds.

    Args:
        written: as `packed` gave it.
        described: by name a tensor of the right shape and type, which may be on the meta device.
        stored: one of `STORED`.

    Raises:
        ValueError: a tensor is missing, too many or of another shape or type.
    """
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, like in described.items():
        if stored == "int8" and name + _SCALE in written and name in written:
            weight, scale = written[name], written[name + _SCALE]
            used |= {name, name + _SCALE}
            if weight.dtype != torch.int8 or scale.shape != weight.shape[:1]:
                raise ValueError(f"{name} is no int8 with a scale for each output")
            found[name] = weight.float() * scale[:, None]
        elif stored == "sparse" and name + _KEPT in written and name + _VALUES in written:
            used |= {name + _VALUES, name + _KEPT}
            found[name] = _filled(name, written[name + _VALUES], written[name + _KEPT], like)
        elif name in written:
            used.add(name)
            found[name] = written[name]
        else:
            raise ValueError(f"the weights lack {name}")
        if found[name].shape != like.shape or found[name].dtype != like.dtype:
            was, wanted = tuple(found[name].shape), tuple(like.shape)
            raise ValueError(f"{name} is {was} {found[name].dtype}, not {wanted} {like.dtype}")
    if more := sorted(set(written) - used):
        raise ValueError(f"the weights have {more[0]}, which the recipe has not")
    return found


def _has_zeros(weight: Tensor) -> bool:
    return weight.is_floating_point() and int((weight == 0).sum()) > _ZEROS * weight.numel()


def _filled(name: str, values: Tensor, kept: Tensor, like: Tensor) -> Tensor:
    count = math.prod(like.shape)
    if kept.dtype != torch.uint8 or kept.numel() != (count + 7) // 8:
        raise ValueError(f"{name} keeps {kept.numel()} bytes of places, not {(count + 7) // 8}")
    places = torch.from_numpy(np.unpackbits(kept.numpy(), count=count).astype(bool))
    if int(places.sum()) != values.numel():
        raise ValueError(f"{name} has {values.numel()} values for {int(places.sum())} places")
    found = torch.zeros(count, dtype=values.dtype)
    found[places] = values
    return found.reshape(like.shape)

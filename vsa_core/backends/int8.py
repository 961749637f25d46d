"""Linear layers in 8 bits on the CPU: weights per output, activations per token as they come.

torch's own dynamic quantisation takes one scale for a whole batch of activations, so that what a
text gets depends on the texts beside it; here every token has its own, and does not.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from vsa_core.errors import BackendError

# Activations take 7 bits: the kernels of processors without VNNI add pairs of 8 by 8 bit products
# in 16 bits, which 7 by 8 bits never overflow. The same on every processor.
_STEPS = 63
_ZERO = 64


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, symmetric per output, and 7-bit activations.

    A token's activations x (K values) are brought to [-1, 1] by the middle m and half the width h
    of their range, so that `x·W = h · ((x − m)/h · W) + m · ΣW`; the middle term is done in 8 bits.
    """

    packed: torch.ScriptObject
    total: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()  # (N, K)
        scale = weight.abs().amax(dim=1).clamp_min(1e-12) / 127
        with warnings.catch_warnings():
            # torch announces the end of its quantised tensors; the version of torch is pinned.
            warnings.simplefilter("ignore")
            eight_bits = torch.quantize_per_channel(
                weight, scale, torch.zeros(len(scale), dtype=torch.int64), 0, torch.qint8
            )
            total = eight_bits.dequantize().sum(dim=1)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = torch.ops.quantized.linear_prepack(eight_bits, None)
        self.register_buffer("total", total)
        bias = torch.zeros(len(scale)) if linear.bias is None else linear.bias.detach().float()
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) float32 to (..., N)."""
        rows = x.reshape(-1, self.in_features)
        low, high = torch.aminmax(rows, dim=1, keepdim=True)
        middle, half = (low + high) / 2, ((high - low) / 2).clamp_min(1e-12)
        product: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            torch.addcmul(-middle / half, rows, 1 / half), 1 / _STEPS, _ZERO, self.packed
        )
        constant = torch.addcmul(self.bias, middle, self.total)
        return constant.addcmul_(product, half).reshape(*x.shape[:-1], self.out_features)


def quantise(model: nn.Module) -> None:
    """Put an `Int8Linear` in the place of every linear layer, in place.

    Raises:
        BackendError: torch has no int8 kernels for this processor.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        raise BackendError("precision int8 needs an x86 processor: give precision: float32")
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child))

"""Learning rates by part and time, and which parts are trained when"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vsa_core.supervised.encoders import parameters_of
from vsa_core.supervised.model import MultimodalNet
from vsa_core.supervised.recipe import Recipe

_HALVED = 0.5


class Rates:
    """AdamW over all parts of a network, each with its own rate, and the schedule of them.

    Warm-up is linear; then the rate goes to 0 along a cosine, or is halved whenever the figure that
    is watched has not grown for `plateau_patience` epochs.

    Args:
        recipe: rates and schedule.
        net, loss: what is trained; of the loss its learned weights.
        steps: optimiser steps an epoch.
    """

    def __init__(self, recipe: Recipe, net: MultimodalNet, loss: nn.Module, steps: int) -> None:
        self._schedule = recipe.schedule
        self._total = steps * recipe.schedule.epochs
        self._warm = max(1, round(self._total * recipe.schedule.warmup_share))
        self._step = 0
        self._factor = 1.0
        self._waited = 0
        groups: list[dict[str, Any]] = []
        taken: set[int] = set()
        for name in net.modalities:
            backbone = getattr(net.encoders[name], "backbone", None)
            rate = getattr(recipe.encoders, name).learning_rate
            # An encoder without a backbone is trained from nothing, as a whole.
            part = net.encoders[name] if backbone is None else backbone
            groups += _groups(part, rate, recipe.loss.l2)
            taken |= {id(p) for p in part.parameters()}
        others = nn.ParameterList(p for p in net.parameters() if id(p) not in taken)
        groups += _groups(others, recipe.schedule.learning_rate, recipe.loss.l2)
        groups += _groups(loss, recipe.schedule.learning_rate, 0.0)
        self._peaks = [group["lr"] for group in groups]
        self.optimizer = torch.optim.AdamW(groups)
        self.parameters = [p for group in groups for p in group["params"]]
        self._weights = [p for m in (net.fusion, net.heads) for p in m.parameters() if p.dim() > 1]

    @property
    def current(self) -> float:
        """The share of each peak rate that holds now."""
        return self._share()

    def set(self) -> None:
        """Set the rates of the next step."""
        share = self._share()
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share

    def count(self) -> None:
        """A step was taken."""
        self._step += 1

    def heard(self, better: bool) -> None:
        """An epoch is over; whether its figure was the best so far."""
        self._waited = 0 if better else self._waited + 1
        if self._schedule.kind == "plateau" and self._waited > self._schedule.plateau_patience:
            self._factor *= _HALVED
            self._waited = 0

    def l1(self) -> Tensor:
        """Sum of the magnitudes of the weights of fusion and heads."""
        return torch.stack([weight.abs().sum() for weight in self._weights]).sum()

    def state(self) -> dict[str, Any]:
        """All that decides the next step."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "step": self._step,
            "factor": self._factor,
            "waited": self._waited,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self._step, self._factor = state["step"], state["factor"]
        self._waited = state["waited"]

    def _share(self) -> float:
        if self._step < self._warm:
            return (self._step + 1) / self._warm
        if self._schedule.kind == "plateau":
            return self._factor
        gone = (self._step - self._warm) / max(1, self._total - self._warm)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, gone)))


def trained_parts(net: MultimodalNet, recipe: Recipe, epoch: int) -> None:
    """Put a network into training mode, but for what the recipe keeps frozen in this epoch.

    A frozen part is in evaluation mode: neither its weights nor the statistics of its batch
    normalisations move.
    """
    net.train()
    for name in net.modalities:
        settings = getattr(recipe.encoders, name)
        encoder: Any = net.encoders[name]
        blocks: list[nn.Module] = encoder.blocks()
        trained = blocks if settings.trained_blocks is None else blocks[-settings.trained_blocks :]
        if epoch < settings.frozen_epochs:
            trained = []
        backbone = getattr(encoder, "backbone", None)
        part = nn.ModuleList(blocks) if backbone is None else backbone
        moving = {id(p) for p in parameters_of(trained)}
        whole = settings.trained_blocks is None and bool(trained)
        for parameter in part.parameters():
            parameter.requires_grad_(whole or id(parameter) in moving)
        if not whole:
            part.eval()
            for block in trained:
                block.train()


def _groups(part: nn.Module, rate: float, decay: float) -> list[dict[str, Any]]:
    """Weights, and apart what is not decayed: biases and normalisations."""
    parameters = list(part.parameters())
    found = [
        ([p for p in parameters if p.dim() > 1], decay),
        ([p for p in parameters if p.dim() <= 1], 0.0),
    ]
    return [{"params": some, "lr": rate, "weight_decay": d} for some, d in found if some]

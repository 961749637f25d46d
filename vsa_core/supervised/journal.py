"""Where a training is told of as it goes: TensorBoard, Weights & Biases, MLflow"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vsa_core.errors import ConfigError

KINDS = ("tensorboard", "wandb", "mlflow")


class Journal(Protocol):
    """What hears of a training."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch's figures, its number as `epoch`."""

    def close(self) -> None:
        """Nothing more comes."""


class Journals:
    """Several journals as one."""

    def __init__(self, journals: Sequence[Journal]) -> None:
        self._journals = journals

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Tell each."""
        for journal in self._journals:
            journal.epoch(record)

    def close(self) -> None:
        """Close each."""
        for journal in self._journals:
            journal.close()


def open_journals(kinds: Sequence[str], folder: Path, recipe: Mapping[str, Any]) -> Journals:
    """Journals of a training.

    Args:
        kinds: some of `KINDS`.
        folder: of the training; TensorBoard's lies in its `tensorboard/`.
        recipe: JSON-able, told to those that keep settings.

    Raises:
        ConfigError: no such journal, or its package is missing.
    """
    made: dict[str, type[_TensorBoard] | type[_WandB] | type[_MLflow]]
    made = {"tensorboard": _TensorBoard, "wandb": _WandB, "mlflow": _MLflow}
    for kind in kinds:
        if kind not in made:
            raise ConfigError(f"there is no journal {kind!r}: give one of {', '.join(KINDS)}")
        if importlib.util.find_spec(kind) is None:
            raise ConfigError(f"journal {kind} needs its package: pip install {kind}")
    return Journals([made[kind](folder, recipe) for kind in kinds])


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in record.items()
        if name != "epoch" and isinstance(value, float | int)
    }


class _TensorBoard:
    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:  # noqa: ARG002
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def epoch(self, record: Mapping[str, Any]) -> None:
        for name, value in _numbers(record).items():
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        import wandb

        # Resumed under the folder's name, so that a training cut off goes on in its own run.
        self._run: Any = wandb.init(
            project="vsa", id=folder.name, resume="allow", dir=str(folder), config=dict(recipe)
        )

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._run.log(_numbers(record), step=record["epoch"])

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        mlflow.set_experiment("vsa")
        mlflow.start_run(run_name=folder.name)
        mlflow.log_dict(dict(recipe), "recipe.json")

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._mlflow.log_metrics(_numbers(record), step=record["epoch"])

    def close(self) -> None:
        self._mlflow.end_run()

"""Where a training is told of as it goes: TensorBoard, Weights & Biases, MLflow"""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vsa_core.errors import ConfigError
from vsa_core.whole_files import put_whole

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


def open_journals(
    kinds: Sequence[str | Journal], folder: Path, recipe: Mapping[str, Any]
) -> Journals:
    """Journals of a training.

    Args:
        kinds: some of `KINDS`, and journals of the caller's own.
        folder: of the training; TensorBoard's lies in its `tensorboard/`.
        recipe: JSON-able, told to those that keep settings.

    Raises:
        ConfigError: no such journal, or its package is missing.
    """
    made: dict[str, type[_TensorBoard] | type[_WandB] | type[_MLflow]]
    made = {"tensorboard": _TensorBoard, "wandb": _WandB, "mlflow": _MLflow}
    for kind in kinds:
        if not isinstance(kind, str):
            continue
        if kind not in made:
            raise ConfigError(f"there is no journal {kind!r}: give one of {', '.join(KINDS)}")
        if importlib.util.find_spec(kind) is None:
            raise ConfigError(f"journal {kind} needs its package: pip install {kind}")
    return Journals(
        [made[kind](folder, recipe) if isinstance(kind, str) else kind for kind in kinds]
    )


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

        self._run: Any = wandb.init(
            project="vsa",
            id=_run_of(folder, "wandb") or _begun(folder, "wandb", secrets.token_hex(8)),
            name=folder.parent.name,
            resume="allow",
            dir=str(folder),
            config=dict(recipe),
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
        known = _run_of(folder, "mlflow")
        run = mlflow.start_run(run_id=known, run_name=None if known else folder.parent.name)
        if known is None:
            _begun(folder, "mlflow", run.info.run_id)
            mlflow.log_dict(dict(recipe), "recipe.json")

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._mlflow.log_metrics(_numbers(record), step=record["epoch"])

    def close(self) -> None:
        self._mlflow.end_run()


def _run_of(folder: Path, journal: str) -> str | None:
    """The run of a training in a journal, which goes on when the training does."""
    path = folder / f"{journal}-run"
    return path.read_text().strip() if path.is_file() else None


def _begun(folder: Path, journal: str, run: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    put_whole(folder / f"{journal}-run", run.encode())
    return run

"""Train a supervised model: from MELD, from consensus, or from what people reviewed"""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow

from flows.opening import opened
from tasks.reports import table
from tasks.train import trained
from vsa_core.supervised.choosing import table_of


@flow(name="train-supervised")
def train_supervised(
    store: str = "store",
    data: Literal["meld", "consensus", "reviews"] = "meld",
    out: str = "supervised",
    recipe: str | None = None,
    init: str | None = None,
    text_only: bool = False,
    epochs: int | None = None,
) -> dict[str, Any]:
    """Train, score and package a supervised model; a training that was cut off goes on.

    Args:
        store: Folder or s3:// address of the tables.
        data: `meld`, as `vsa meld prepare` put it into the store; `consensus`, segments whose
            models agree; or `reviews`, segments that people reviewed.
        out: Folder of the training and the model.
        recipe: YAML file of the recipe; null for the one that ships, or that of `init`.
        init: Folder of a model to begin from; null begins anew.
        text_only: Leave picture and voice out.
        epochs: Epochs at most; null for the recipe's.

    Returns:
        As `vsa_core.supervised.fit.fit`.

    Raises:
        UsageError: the store holds nothing to learn from.
        ConfigError: the recipe is wrong, or the folder holds another training.
    """
    tables = opened(store)
    options = {"recipe": recipe, "init": init, "text_only": text_only, "epochs": epochs}
    found = trained(data, tables.location, out, options)
    table("vsa-training", table_of(found), f"Model {out}/model, best epoch {found['best_epoch']}")
    return found

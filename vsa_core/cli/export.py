"""`vsa export`: a trained model in other forms (ONNX, int8, pruned), and what each costs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsa_core.cli import OK, there
from vsa_core.cli.screen import write_json, write_table
from vsa_core.errors import UsageError

if TYPE_CHECKING:
    from vsa_core.supervised.exporting import Cost, Forward
    from vsa_core.supervised.recipe import Recipe
    from vsa_core.supervised.utterances import Utterance

EXPORT_FORMATS = ("safetensors", "onnx", "int8", "pruned")
# Of the processor, while it is measured.
_THREADS = 2


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    formats = [name for name in args.formats.split(",") if name]
    unknown = [name for name in formats if name not in EXPORT_FORMATS]
    if unknown or not formats:
        raise UsageError(
            f"--formats: {unknown[0] if unknown else 'nothing'}: give some of "
            f"{','.join(EXPORT_FORMATS)}"
        )
    if not 0 < args.sparsity < 1:
        raise UsageError(f"--sparsity is {args.sparsity}: give a share between 0 and 1")
    there(args.model)
    out = Path(args.out)
    if out.resolve() == args.model.resolve():
        raise UsageError("--out is the model itself: give another folder")
    costs = _exported(args, formats, out)
    from vsa_core.supervised.exporting import RUNS  # with torch: after what is wrong is said

    if args.json:
        write_json(sys.stdout, {"threads": _THREADS, "forms": [asdict(one) for one in costs]})
        return OK
    trained = costs[0]
    columns = ["form", "MB", "p50 ms", "p95 ms", "logits differ by"]
    rows: list[list[Any]] = []
    for one in costs:
        times = f"{one.megabytes:.1f}", f"{one.p50_ms:.1f}", f"{one.p95_ms:.1f}"
        rows.append([one.name, *times, f"{one.logit_change:.2g}"])
    if trained.f1 is not None:
        columns += ["F1", "F1 change"]
        for row, one in zip(rows, costs, strict=True):
            row += [f"{one.f1:.4f}", f"{(one.f1 or 0) - trained.f1:+.4f}"]
    write_table(sys.stdout, columns, rows)
    if trained.f1 is not None:
        sys.stdout.write(
            f"F1: weighted, mean of the targets, over the labelled utterances of {args.split!r} in "
            f"{args.truth_from} (coverage 100 %).\n"
        )
    sys.stdout.write(f"One clip, {_THREADS} threads of the CPU, {RUNS} runs. Written to {out}\n")
    return OK


def _exported(args: argparse.Namespace, formats: Sequence[str], out: Path) -> list[Cost]:
    """Write each form, and measure it beside the model as it was trained."""
    import torch

    from vsa_core.supervised import exporting, package

    net, recipe, card = package.load_package(args.model)
    if card["stored"] == "int8":
        raise UsageError(f"{args.model} has 8 bits already: export the model it was made from")
    named = package.recipe_as_named(args.model)
    about, tokenizer = card["about"], args.model / "text"
    clip = exporting.made_batch(net, recipe, 1, 24, 300)
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        evaluate = _evaluation(args, recipe)
        costs = [exporting.cost("trained", args.model / package.WEIGHTS, net, net, clip, evaluate)]
        for name in formats:
            folder = out / name
            if name == "onnx":
                exporting.export_onnx(folder, net, named, about, tokenizer)
                form: Forward = exporting.OnnxModel(folder, _THREADS)
                weights = folder / exporting.ONNX_FILE
            else:
                made, told, stored = net, about, name
                if name == "safetensors":
                    stored = "float32"
                elif name == "pruned":
                    made, _, _ = package.load_package(args.model)
                    zeros = exporting.prune(made, args.sparsity)
                    told = {**about, "pruned": {"sparsity": args.sparsity, "zeros": zeros}}
                    stored = "sparse"
                package.save_package(folder, made, named, told, stored=stored, tokenizer=tokenizer)
                form, _, _ = package.load_package(folder)
                weights = folder / package.WEIGHTS
            costs.append(exporting.cost(name, weights, form, net, clip, evaluate))
    finally:
        torch.set_num_threads(threads)
    return costs


def _evaluation(args: argparse.Namespace, recipe: Recipe) -> Callable[[Forward], float] | None:
    """Weighted F1, mean of the targets, on the labelled utterances that were named."""
    if args.truth_from is None:
        return None
    import numpy as np
    import torch

    from vsa_core.folders import features_dir
    from vsa_core.supervised.dataset import UtteranceDataset
    from vsa_core.supervised.features import FeatureCache
    from vsa_core.supervised.train import Opinions, batches_of

    utterances = _labelled(args.truth_from, args.split)
    features = args.features or features_dir()
    cache = FeatureCache(features, recipe.encoders.video, recipe.encoders.audio)
    data = UtteranceDataset(utterances, recipe, cache, train=False)
    rows = list(range(len(data)))
    size = recipe.schedule.batch_size
    order = [rows[at : at + size] for at in range(0, len(rows), size)]

    def evaluate(forward: Forward) -> float:
        with torch.inference_mode():
            said = [forward(batch) for batch in batches_of(data, order, "cpu", 0)]
        probs = {t: torch.cat([x[t] for x in said]).softmax(1).numpy() for t in recipe.targets}
        opinions = Opinions(probs, float("nan"))
        figures = [opinions.weighted_f1(utterances, target) for target in recipe.targets]
        return float(np.nanmean(figures))

    return evaluate


def _labelled(place: Path, split: str) -> list[Utterance]:
    """Utterances of a store, or of a MELD folder.

    Raises:
        UsageError: none of that split are there.
    """
    if (place / "vsa-store.json").is_file():
        from vsa_core.store import Store
        from vsa_core.supervised.stored import meld_from_store

        found = meld_from_store(Store(place)).get(split, [])
    else:
        from vsa_core.supervised.meld import read_meld

        found = read_meld(place, [split], check=False).utterances.get(split, [])
    if not any(one.labels for one in found):
        raise UsageError(f"{place} has no labelled utterance in {split!r}: choose another --split")
    return found

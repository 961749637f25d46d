"""`vsa classify`: a trained model on videos, one line for each."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from vsa_core.cli import OK, SOME_FAILED, there
from vsa_core.cli.screen import cell
from vsa_core.errors import MediaError, UsageError

if TYPE_CHECKING:
    from vsa_core.supervised.predictor import Said


def run(args: argparse.Namespace) -> int:
    """Carry out the command."""
    if args.text is not None and len(args.videos) > 1:
        raise UsageError("--text is what is said in one video: give one VIDEO with it")
    there(args.model, *args.videos)
    from vsa_core.supervised.predictor import Predictor

    predictor = Predictor.load(args.model, args.device)
    code = OK
    for video in args.videos:
        try:
            said = predictor.predict(video, args.text, args.start_ms, args.end_ms)
        except MediaError as error:
            code = SOME_FAILED
            _write(args.json, {"video": str(video), "error": str(error)}, str(error))
            continue
        values = {"video": str(video), **_values(said, predictor.targets)}
        _write(args.json, values, f"{video}: {_line(said, predictor.targets)}")
    return code


def _write(as_json: bool, values: dict[str, Any], line: str) -> None:
    if as_json:
        sys.stdout.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        sys.stdout.write(cell(line) + "\n")
    sys.stdout.flush()


def _values(said: Said, targets: tuple[str, ...]) -> dict[str, Any]:
    """By target its label and probabilities, null where the model abstains."""
    found: dict[str, Any] = {}
    for target in targets:
        probs = None if said.probs is None else said.probs[target]
        found[target] = said.label(target)
        found[f"{target}_probs"] = probs and {name: round(p, 6) for name, p in probs.items()}
    return found | {"present": said.present, "note": said.notes}


def _line(said: Said, targets: tuple[str, ...]) -> str:
    if said.probs is None:
        line = "abstains: nothing to read, see or hear"
    else:
        parts = []
        for target in targets:
            label = said.label(target)
            assert label is not None
            parts.append(f"{target} {label} ({said.probs[target][label]:.0%})")
        line = ", ".join(parts)
        line += f"; from {', '.join(name for name, there in said.present.items() if there)}"
    return line if said.notes is None else f"{line}; {said.notes}"

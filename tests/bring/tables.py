"""Predictions tables as people bring them, with a seed and whatever is to be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]


def rows(
    n: int = 60,
    k: int = 3,
    widths: dict[str, int] | None = None,
    seed: int = 0,
) -> list[Row]:
    """n segments of 6 videos; each modality tells the true class (i % k) in 70 % of the cases."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        for modality, d in (widths or {"text": 4, "face": 3}).items():
            said = i % k if rng.random() < 0.7 else int(rng.integers(k))
            probs = rng.dirichlet(np.ones(k)) * 0.4
            probs[said] += 0.6
            made.append(
                {
                    "segment_id": f"s{i:03d}",
                    "video_id": f"v{i % 6}",
                    "modality": modality,
                    "status": "ok",
                    "probs": probs.tolist(),
                    "embedding": (rng.normal(size=d) + said).tolist() if d else None,
                }
            )
    return made


def write(path: Path, table: list[Row], **options: Any) -> Path:
    """As Parquet; types are what Arrow takes them for, metadata goes into the schema."""
    metadata = options.pop("metadata", None)
    made = pa.Table.from_pylist(table).replace_schema_metadata(metadata)
    pq.write_table(made, path, **options)
    return path


def truth(path: Path, n: int = 60, k: int = 3, names: list[str] | None = None) -> Path:
    """The true class of each segment of `rows`."""
    labels = [names[i % k] if names else str(i % k) for i in range(n)]
    pq.write_table(pa.table({"segment_id": [f"s{i:03d}" for i in range(n)], "label": labels}), path)
    return path

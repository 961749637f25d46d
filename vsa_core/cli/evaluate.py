"""`vsa evaluate`: predictions or a store's labels against what is known, and against others."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, TextIO

from vsa_core.cli import OK
from vsa_core.cli.screen import cell, write_json, write_table

if TYPE_CHECKING:
    from vsa_core.assess import Assessment


def run(args: argparse.Namespace) -> int:
    """Assess the predictions, write the report where one is asked for, and print the figures."""
    from vsa_core.assess import assess_files
    from vsa_core.assess.report import check_place, write_report
    from vsa_core.truths import TARGETS

    if args.report is not None:
        check_place(args.report)
    assessment = assess_files(
        args.predictions,
        args.truth,
        against=args.against,
        targets=TARGETS if args.target == "both" else (args.target,),
    )
    if args.report is not None:
        write_report(assessment, args.report)
    if args.json:
        write_json(sys.stdout, assessment.as_dict())
    else:
        _show(assessment, sys.stdout)
    if args.report is not None:
        sys.stderr.write(f"wrote {args.report / 'report.html'}, and the rest of the report\n")
    return OK


def _show(assessment: Assessment, out: TextIO) -> None:
    from vsa_core.assess.contents import headline, shown, tested

    table = headline(assessment)
    # Nobody asks whose they are where there is one.
    last = len(table.columns) - (assessment.against is None)
    write_table(out, table.columns[:last], [row[:last] for row in table.rows])
    out.write("\nIn brackets 95 % over whole videos; all but coverage is of the covered ones.\n")
    for target, comparison in assessment.comparisons.items():
        every = comparison.all
        out.write(
            f"{target}, predictions less against, on all {every.n}: accuracy "
            f"{shown(every.accuracy_difference)}, weighted F1 "
            f"{shown(every.weighted_f1_difference)}; McNemar: {tested(every.mcnemar)}\n"
        )
    out.write("".join(f"note: {cell(note)}\n" for note in assessment.notes))

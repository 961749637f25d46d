"""The report of an assessment: a folder of Markdown, one self-contained page, pictures, JSON."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from vsa_core.assess import Assessment
from vsa_core.assess.contents import Block, Items, Picture, Section, Table, Words, contents
from vsa_core.assess.pictures import pictures
from vsa_core.errors import UsageError
from vsa_core.truths import TARGETS

_DRAWN = ("confusion", "reliability", "risk-coverage")
_OURS = {"report.md", "report.html", "metrics.json"} | {
    f"{target}-{name}.png" for target in TARGETS for name in _DRAWN
}
# Control characters say nothing on a page, direction overrides would reorder a line.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# What makes a mark, link, picture or formula within a line, bare addresses among them.
_MARKS = re.compile(r"([\\`*_{}\[\]!|~$@]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
.wide { overflow-x: auto; margin: 1rem 0; } table { border-collapse: collapse; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: left;
  vertical-align: top; max-width: 32rem; overflow-wrap: break-word; }
th { background: #f4f4f4; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number span { white-space: nowrap; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
"""
_NUMERIC = ' class="number"'
_NUMBER = re.compile(r"[-+]?\d[\d.]*%?( \(-?[\d.]+ to -?[\d.]+\))?|–")


def check_place(folder: Path) -> None:
    """Whether a report can go there, before any work is done.

    Raises:
        UsageError: there is something that no report is.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--report {folder} is a file: give the name of a folder")
    other = sorted({p.name for p in folder.iterdir()} - _OURS) if folder.exists() else []
    if other:
        raise UsageError(
            f"--report {folder} holds {other[0]!r}, which no report of mine is: give a new folder"
        )


def write_report(assessment: Assessment, folder: Path) -> list[Path]:
    """Write the folder, whole or not at all; an older report there gives way.

    Args:
        assessment: what to report.
        folder: its parents are made.

    Returns:
        The files: report.md, report.html, metrics.json, and the pictures.

    Raises:
        UsageError: it cannot be written, or holds what is no report.
    """
    check_place(folder)
    images: dict[str, bytes] = {}
    for target, about in assessment.targets.items():
        drawn = {"predictions": about}
        if target in assessment.others:
            drawn["against"] = assessment.others[target]
        images |= {f"{name}.png": data for name, data in pictures(target, drawn).items()}
    sections = contents(assessment, tuple(images))
    metrics = json.dumps(assessment.as_dict(), ensure_ascii=False, indent=1, allow_nan=False)
    files = {
        "report.md": _markdown(sections).encode(),
        "report.html": _page(sections, images).encode(),
        "metrics.json": f"{metrics}\n".encode(),
        **images,
    }
    place = folder.absolute()
    making, old = (place.with_name(f".{place.name}.{os.getpid()}.{x}") for x in ("tmp", "old"))
    try:
        making.mkdir(parents=True)
        for name, data in files.items():
            (making / name).write_bytes(data)
        if place.exists():  # two folders cannot change places in one step
            place.rename(old)
        making.rename(place)
    except OSError as error:
        raise UsageError(f"--report {folder}: {error.strerror}: take another folder") from error
    finally:
        if old.exists() and not place.exists():
            old.rename(place)
        for left in (making, old):
            shutil.rmtree(left, ignore_errors=True)
    return [folder / name for name in files]


def _printable(text: str) -> str:
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def _markdown(sections: Sequence[Section]) -> str:
    lines: list[str] = []
    for section in sections:
        lines += [f"{'#' * section.level} {_in_markdown(section.title)}", ""]
        for block in section.blocks:
            if isinstance(block, Words):
                lines.append(_in_markdown(block.text))
            elif isinstance(block, Items):
                lines += [f"- {_in_markdown(line)}" for line in block.lines]
            elif isinstance(block, Picture):
                lines.append(f"![{_in_markdown(block.says)}]({block.file})")
            else:
                lines += _markdown_table(block)
            lines.append("")
    return "\n".join(lines)


def _markdown_table(table: Table) -> list[str]:
    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(_in_markdown, cells))} |"

    return [row(table.columns), f"|{'---|' * len(table.columns)}", *map(row, table.rows)]


def _in_markdown(text: str) -> str:
    """Text that stays text: no mark, link, picture or tag."""
    escaped = _MARKS.sub(r"\\\1", _printable(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _page(sections: Sequence[Section], images: dict[str, bytes]) -> str:
    body: list[str] = []
    for section in sections:
        body.append(f"<h{section.level}>{_in_page(section.title)}</h{section.level}>")
        body += [_block(block, images) for block in section.blocks]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Nothing is loaded and nothing runs, whatever a text says.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(_printable(sections[0].title))}</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _block(block: Block, images: dict[str, bytes]) -> str:
    if isinstance(block, Words):
        return f"<p>{_in_page(block.text)}</p>"
    if isinstance(block, Items):
        return f"<ul>{''.join(f'<li>{_in_page(line)}</li>' for line in block.lines)}</ul>"
    if isinstance(block, Picture):
        data = base64.b64encode(images[block.file]).decode()
        said = html.escape(_printable(block.says))
        return f'<figure><img alt="{said}" src="data:image/png;base64,{data}"></figure>'
    numbers = [all(map(_NUMBER.fullmatch, column)) for column in zip(*block.rows, strict=True)]
    kinds = [_NUMERIC if number else "" for number in numbers or [False] * len(block.columns)]
    names = zip(block.columns, kinds, strict=True)
    head = "".join(f'<th scope="col"{kind}>{_in_page(name)}</th>' for name, kind in names)
    rows = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in block.rows)
    body = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>"
    return f'<div class="wide"><table>\n{body}\n</table></div>'


def _cell(text: str) -> str:
    if not _NUMBER.fullmatch(text):
        return f"<td>{_in_page(text)}</td>"
    # A narrow column puts the interval below its figure, and breaks neither.
    figure, bracket, interval = text.partition(" (")
    below = f" <span>({html.escape(interval)}</span>" if bracket else ""
    return f"<td{_NUMERIC}><span>{html.escape(figure)}</span>{below}</td>"


def _in_page(text: str) -> str:
    return f"<bdi>{html.escape(_printable(text))}</bdi>"

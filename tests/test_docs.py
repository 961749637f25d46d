"""The documentation is held to the code."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

from vsa_core.cli.arguments import VERBS, parser
from vsa_core.config import load_config, profiles

REPO = Path(__file__).resolve().parent.parent
README = (REPO / "README.md").read_text(encoding="utf-8")


def modules() -> list[Path]:
    return sorted(
        path.relative_to(REPO)
        for top in ("flows", "tasks", "vsa_core")
        for path in (REPO / top).rglob("*.py")
    )


@pytest.mark.parametrize("module", modules(), ids=str)
def test_the_readmes_map_names_every_module(module: Path) -> None:
    said = ast.get_docstring(ast.parse((REPO / module).read_text(encoding="utf-8")))
    line = f"| `{module}` | {said.splitlines()[0].rstrip('.')} |"
    assert line in README, f"the README's map lacks: {line}"


def test_the_readmes_map_names_nothing_that_is_gone() -> None:
    named = re.findall(r"^\| `((?:flows|tasks|vsa_core)/[^`]*\.py)` \|", README, re.MULTILINE)
    assert sorted(named) == sorted(map(str, modules()))


def commands() -> list[str]:
    """Every `vsa` command line of the README and the docs."""
    found = []
    for path in [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]:
        for line in path.read_text(encoding="utf-8").splitlines():
            verb = rf"(?:{'|'.join(VERBS)})\b"
            match = re.match(rf"(?:.*\| )?(?:\.venv/bin/)?(vsa {verb}(?!.*…).*)", line.strip())
            if match:
                found.append(match[1])
    return found


@pytest.mark.parametrize("command", commands())
def test_documented_commands_parse(command: str) -> None:
    parser().parse_args(shlex.split(command, comments=True)[1:])


def test_there_are_documented_commands() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)", README))
def test_the_readmes_links_lead_somewhere(link: str) -> None:
    assert (REPO / link).exists()


@pytest.mark.parametrize("profile", profiles())
def test_profiles_load_and_name_themselves(profile: str) -> None:
    assert load_config(profile=profile).profile == profile
    raw = yaml.safe_load((REPO / "configs" / "profiles" / f"{profile}.yaml").read_text())
    assert raw["profile"] == profile

"""docs/alerts.md says what the program does: its commands are accepted, its rules are valid, its headings are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from coupon_ledger.cli.main import cli
from coupon_ledger.projections.alerts.rules_file import defaults
from tests.command_line import done

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```", "", GUIDE, flags=re.MULTILINE | re.DOTALL)
TYPED = [line.partition(" #")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
NAMED = re.findall(r"`(coupon-ledger [^`]+)`", PROSE)
COMMANDS = sorted({line for line in (*TYPED, *NAMED) if line.startswith("coupon-ledger ")})
RULES = [text for kind, text in BLOCKS if kind == "yaml"]


def accept(words: list[str]) -> None:
    """Parse a command with its arguments as the program does, without running it. Raises `click.UsageError`."""
    command: click.Command = cli
    context = click.Context(cli, info_name="coupon-ledger")
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0]) if words else None
        if found is None:
            if command.invoke_without_command:
                break
            raise click.UsageError(f"no command {words[:1]}")
        command, words = found, words[1:]
        if isinstance(command, click.Group):
            context = click.Context(command, parent=context, info_name=command.name)
    command.make_context(command.name, list(words), parent=context)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the commands read."""
    monkeypatch.chdir(tmp_path)
    for name in ("rules.yaml", "labels.ndjson", "corrections.ndjson"):
        (tmp_path / name).touch()
    return tmp_path


def test_the_guide_has_the_steps() -> None:
    """Else the tests below look at nothing."""
    assert len(TYPED) > 15 and len(NAMED) > 30 and len(RULES) == 1


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_guide_is_accepted(line: str, folder: Path) -> None:
    """Else a newcomer, or somebody with an alert at night, types a command that does not exist."""
    accept(shlex.split(re.sub(r" (>|<|&).*", "", line))[1:])


@pytest.mark.parametrize("line", ["alerts lost", "alerts list --lost", "alerts", "alerts ack"])
def test_a_command_that_does_not_exist_is_not_accepted(line: str, folder: Path) -> None:
    """Else the test above cannot fail."""
    with pytest.raises(click.UsageError):
        accept(line.split())


def test_the_rules_of_the_guide_are_valid(folder: Path) -> None:
    """Else the first rule that somebody tries is refused."""
    (folder / "rules.yaml").write_text(RULES[0], encoding="utf-8")
    done("alerts", "rules", "check", "rules.yaml")
    [own] = re.findall(r"- alert: (\w+)", RULES[0])
    assert own in done("alerts", "rules", "show", own, "--alert-rules", "rules.yaml").out


def test_every_default_alert_has_a_section() -> None:
    """Else the link in a message at night leads to nowhere."""
    wanted = {str(rule.playbook).partition("#")[2] for rule in defaults().rules}
    assert all(str(rule.playbook).startswith("docs/alerts.md#") for rule in defaults().rules)
    sections = re.findall(r"^### (.+)$", GUIDE.partition("## What to do")[2], re.MULTILINE)
    assert sorted(sections) == sorted(wanted)


def test_links_lead_somewhere() -> None:
    """Else a reader is sent to nowhere."""
    headings = {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
        for line in re.findall(r"^#+ (.+)$", GUIDE, re.MULTILINE)
    }
    for file, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", GUIDE):
        assert (ROOT / "docs" / file).exists() if file else anchor in headings, (file, anchor)

"""docs/deploy/: what is written there can be run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from coupon_ledger.api.supervisor import LEAVE_S
from coupon_ledger.cli.main import cli
from coupon_ledger.cli.run import run

DEPLOY = Path(__file__).parents[1] / "docs" / "deploy"
UNIT = DEPLOY / "coupon-ledger.service"


def parsed(command: str) -> None:
    """The options of a `coupon-ledger run` must be those that it has."""
    words = shlex.split(command)
    arguments = words[words.index("run") + 1 :]
    run.make_context("run", arguments)


def unit() -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(UNIT)
    return parser


def test_the_unit_starts_what_there_is() -> None:
    """Else a service that was installed by the book would not start."""
    parsed(unit()["Service"]["ExecStart"])


def test_the_unit_waits_for_both_parts() -> None:
    """Else systemd would kill the consumer while it still finishes what it has begun."""
    assert int(unit()["Service"]["TimeoutStopSec"].removesuffix("s")) > 2 * LEAVE_S


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not there")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name  # with a command that is there
    copy.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text()))
    ran = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    about = [line for line in ran.stderr.splitlines() if UNIT.name in line]
    assert about == []


def test_the_container_starts_what_there_is() -> None:
    """Else the image would end at once."""
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    [entry], [command] = (re.findall(rf"^{name} \[(.*)\]$", text, re.MULTILINE) for name in ("ENTRYPOINT", "CMD"))
    parsed(" ".join(re.findall(r'"([^"]*)"', entry + command)))
    for source in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert (DEPLOY.parents[1] / source).exists()
    assert (DEPLOY.parents[1] / "constraints.txt").exists()


def test_the_readme_names_commands_and_options_that_there_are() -> None:
    """Else whoever follows it would be stuck."""
    text = (DEPLOY / "README.md").read_text()
    commands = set(re.findall(r"coupon-ledger (people|tokens|backup|archive|doctor|run)\b", text))
    assert commands and commands <= set(
        cli.list_commands(cli.make_context("coupon-ledger", [], resilient_parsing=True))
    )
    known = {option for parameter in run.params for option in parameter.opts}
    used = set(re.findall(r"`?(--(?:host|name|insecure|tls-[a-z]+))\b", text))
    assert used <= known
    for linked in re.findall(r"\]\(([^)#]+)\)", text):
        assert (DEPLOY / linked).exists(), linked

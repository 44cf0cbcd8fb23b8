"""Shell completion, asked as bash asks."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from coupon_ledger.cli.main import COMMANDS
from coupon_ledger.ledger.rules import STATES
from coupon_ledger.ledger.topics import INPUT_TOPICS
from tests.command_line import COMMAND, PATIENCE_S, done, ledger, one_sentence

ASK = """
source <(coupon-ledger completion bash)
complete -p coupon-ledger >/dev/null || exit 1
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_coupon_ledger_completion coupon-ledger
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    path = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", "coupon-ledger", *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        timeout=PATIENCE_S,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_values() -> None:
    """Else whoever pressed the tab key would get nothing, or names that are not there."""
    assert completed("") == list(COMMANDS)
    assert completed("dead") == ["dead-letters"]
    assert completed("dead-letters", "") == ["discard", "export", "list", "replay", "show"]
    assert {"--topic", "--type", "--since", "--follow", "--no-follow"} <= set(completed("tail", "--"))
    assert completed("publish", "--topic", "") == list(INPUT_TOPICS)
    assert completed("tail", "--type", "re") == ["reserved", "released", "returned", "revoked", "refunded"]
    assert completed("coupons", "--state", "") == list(STATES)
    assert completed("completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize(("shell", "words"), [("zsh", "#compdef coupon-ledger"), ("fish", "complete --no-files")])
def test_other_shells_get_their_own_script(shell: str, words: str) -> None:
    """Else a shell would be given another's script."""
    script = done("completion", shell).out
    assert words in script and "_COUPON_LEDGER_COMPLETE" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True, timeout=PATIENCE_S)


def test_an_unknown_shell_is_refused() -> None:
    """Else a wrong script would be written into somebody's settings."""
    one_sentence(ledger("completion", "tcsh"), 2, "'tcsh'", "'bash'")

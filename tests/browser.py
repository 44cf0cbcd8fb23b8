"""A real browser, to see pages as people do: Chromium, as Debian packages it.

`python -m tests.browser install` gets it where it is missing and may be installed (root, apt-get), and says so where
not; the tests that need it are skipped then. With COUPON_LEDGER_REQUIRE_BROWSER=1 both fail instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

REQUIRE: Final = "COUPON_LEDGER_REQUIRE_BROWSER"
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_MISSING: Final = "no browser: none of chromium, google-chrome is here; `apt-get install chromium` brings one"
_LIMIT_S: Final = 120


def found() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


def command() -> list[str]:
    """What starts it; the test is skipped where there is none."""
    path = found()
    if path is None:
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{REQUIRE}=1, but {_MISSING}", pytrace=False)
        pytest.skip(_MISSING)
    # In a sandbox it does not start as root.
    return [path, "--headless", "--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]


def open_page(page: Path, profile: Path, *options: str) -> tuple[str, list[str]]:
    """The page as it became in the browser, and what came on its console. `profile`: a folder of its own."""
    started = [*command(), f"--user-data-dir={profile}", "--enable-logging=stderr", "--hide-scrollbars"]
    ran = subprocess.run(
        [*started, *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=_LIMIT_S, check=True
    )
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


def install() -> int:
    if found() is None and shutil.which("apt-get") and os.geteuid() == 0:
        print("installing chromium for the tests of pages (apt-get)", flush=True)
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            if subprocess.run(["apt-get", "-qq", *arguments], env=environment, check=False).returncode:
                break
    if found() is None:
        print(_MISSING, file=sys.stderr)
        return int(os.environ.get(REQUIRE) == "1")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit("usage: python -m tests.browser install")
    sys.exit(install())

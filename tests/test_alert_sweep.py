"""`alerts backtest --sweep`: a mistake is answered as the rules file answers it, in the reader's language."""

from __future__ import annotations

import re

import pytest

from tests.command_line import done, ledger

_MISTAKES = {
    "device_farm.at_least=x": ("'x' is no whole number; write for example 5", "'x' 不是整数；例如 5"),
    "device_farm.at_least=3,-1": ("'-1' is too small; write at least 2", "'-1' 太小；至少 2"),
    "device_farm.window=10q": ("'10q' is no duration; write for example 10m", "'10q' 不是时长；例如 10m"),
    "device_farm.atleast=3": ("no field 'atleast'; did you mean at_least?", "没有字段 'atleast'；是否指 at_least？"),
    "device_frm.at_least=3": ("no rule 'device_frm'; did you mean device_farm?", "没有规则 'device_frm'"),
    "device_farm.by=ip": ("by cannot be swept, since it has no single value", "by 不是单一取值"),
    "device_farm.kind=linked": ("kind cannot be swept", "kind 不是单一取值"),
    "device_farm=3": ("name a rule, a field and values", "请写规则、字段与取值"),
    "device_farm.at_least=": ("name a rule, a field and values", "请写规则、字段与取值"),
}


@pytest.fixture
def shop(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COUPON_LEDGER_ALERT_RULES")
    done("init")


@pytest.mark.long
@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("sweep", _MISTAKES)
def test_a_mistake_in_a_sweep_says_what_the_field_must_be(shop: None, sweep: str, lang: str) -> None:
    """Else people read the words of a library about its types, and do not know what to write."""
    ran = ledger("--lang", lang, "alerts", "backtest", "--sweep", sweep)
    assert ran.code == 2 and not ran.out
    last = ran.err.strip().splitlines()[-1]
    assert _MISTAKES[sweep][lang == "zh"] in last and f"--sweep {sweep.partition('=')[0]}" in last
    if lang == "zh":
        quoted = re.sub(r"`[^`]*`|'[^']*'|--\w+|device_\w+(\.\w+)?(=\S*)?", "", last)
        assert not {"is", "the", "write", "no", "a", "and", "should"} & set(re.findall("[a-z]+", quoted))

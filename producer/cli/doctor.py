"""`rankmill doctor`: check this machine."""

from __future__ import annotations

import json
import sys

from rich.text import Text

from producer.cli.console import Console
from producer.cli.options import DeviceFlag, JsonFlag
from producer.doctor.finding import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(device: DeviceFlag = None, as_json: JsonFlag = False) -> None:
    """Check this machine's setup and suggest fixes.

    Exits with 1 if there is a problem.
    """
    from producer.doctor.examine import examine

    findings = examine()
    if as_json:
        print(json.dumps([each.model_dump() for each in findings]))
    else:
        Console().print(_lines(findings), soft_wrap=True)
    if any(each.state == "problem" for each in findings):
        sys.exit(1)


def _lines(findings: list[Finding]) -> Text:
    width = max(len(each.name) for each in findings)
    lines = Text()
    for each in findings:
        lines.append(f"{each.state:<8}", style=_STYLES[each.state])
        lines.append(f"{each.name:<{width}}  {each.message}\n")
        if each.fix:
            lines.append(f"{'':<8}{'':<{width}}  fix: {each.fix}\n", style="bold")
    lines.rstrip()
    return lines

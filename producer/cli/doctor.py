"""`rankmill doctor`: check this machine."""

from __future__ import annotations

import json
import sys

from producer.cli.console import Console
from producer.cli.fact_lines import facts_text
from producer.cli.options import DeviceFlag, JsonFlag

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
        facts = [
            (f"{each.state:<8}{each.name}", "\nfix: ".join(filter(None, (each.message, each.fix))))
            for each in findings
        ]
        styles = [_STYLES[each.state] for each in findings]
        Console().print(facts_text(facts, styles), soft_wrap=True)
    if any(each.state == "problem" for each in findings):
        sys.exit(1)

"""``zray why``: why anything waits, failed or is as it is. Reads only."""

from __future__ import annotations

import json
import sys

from zray.cli.status import locate
from zray.core import causes
from zray.errors import ZrayError
from zray.nodes.driver.observer import Observer


def explain(addresses: list[str], subjects: list[str], as_json: bool) -> int:
    """Print why each is as it is; returns the exit code."""
    try:
        info, target = locate(addresses)
        with Observer(info, target) as observer:
            answers = observer.why(subjects)
    except (ZrayError, OSError) as error:
        if as_json:
            found = {"code": getattr(error, "code", ""), "message": str(error)}
            print(json.dumps({"error": found}, indent=2))
        else:
            print(f"zray: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps([causes.described(answer) for answer in answers], indent=2))
    else:
        for answer in answers:
            first, *others = causes.lines(answer.causes)
            print(f"{causes.plain(answer.subject)}: {first}" if len(answers) > 1 else first)
            for other in others:
                print(f"  {other}" if len(answers) > 1 else other)
    return int(any(answer.causes[0].code == causes.UNKNOWN for answer in answers))

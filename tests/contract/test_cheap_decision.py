"""A comment that is no command is decided for next to nothing: what is imported for it is bounded, and so is its time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EVENT = ROOT / "tests" / "data" / "events" / "issue_comment.created.4.json"

PROGRAM = """
import json, sys, time
from dispatcher.event import parse_event
from dispatcher.command import Ignored, parse_command
payload = json.load(open(sys.argv[1]))
payload["issue"]["pull_request"] = {}
decision = parse_command(parse_event("issue_comment", payload))
assert decision == Ignored("not-a-command"), decision
print(json.dumps({"seconds": time.process_time(), "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def test_a_comment_that_is_no_command_is_cheap() -> None:
    """Run without site-packages: the decision must be possible before anything is installed, too."""
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-S", "-c", PROGRAM, str(EVENT)], capture_output=True, text=True, check=True, cwd=ROOT)
        runs.append(json.loads(done.stdout))
    assert set(runs[0]["modules"]) - sys.stdlib_module_names == {"dispatcher", "__main__"} - sys.stdlib_module_names
    assert not {"socket", "ssl", "asyncio"} & set(runs[0]["modules"])
    assert min(run["seconds"] for run in runs) < 0.25

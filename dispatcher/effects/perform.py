"""The mode that the action was given → that command of the command line, isolated from whatever lies in the workspace."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> int:
    """The command's exit status; its outputs, summary and errors are its own."""
    from dispatcher.action import MODES
    from dispatcher.cli import main as command_line

    mode = os.environ.get("DISPATCH_MODE") or MODES[0]
    if mode not in MODES:
        print(f"::error title=input.mode::The input `mode` takes {', '.join(MODES)}.", file=sys.stderr)
        return 2
    return command_line([mode])


if __name__ == "__main__":
    # Isolated (-I): only our own folder is added to where modules come from, never the workspace.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    raise SystemExit(main())

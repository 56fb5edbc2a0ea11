"""`python -m dispatcher.docs [FOLDER]`: brings the generated parts of the pages below FOLDER (default: here) up to date."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dispatcher.docs.blocks import blocks
from dispatcher.docs.pages import page_files, rewritten


def main(argv: Sequence[str]) -> int:
    """Writes the pages that change, and names them."""
    root = Path(argv[0]) if argv else Path()
    written = blocks(root)
    for file in page_files(root):
        text = file.read_text(encoding="utf-8")
        new = rewritten(text, written, str(file))
        if new != text:
            file.write_text(new, encoding="utf-8")
            print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

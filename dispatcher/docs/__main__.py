"""`python -m dispatcher.docs [FOLDER]`: brings what is generated below FOLDER (default: here) up to date: parts of pages, the examples."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dispatcher.docs.blocks import blocks
from dispatcher.docs.pages import page_files, rewritten
from dispatcher.workflows import examples


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
    for name, text in examples().items():
        example = root / "docs" / "examples" / name
        if example.parent.is_dir() and (not example.is_file() or example.read_text(encoding="utf-8") != text):
            example.write_text(text, encoding="utf-8")
            print(example)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

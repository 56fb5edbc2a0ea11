"""A drawing → a file: SVG as text, PNG by Pillow (https://pillow.readthedocs.io/en/stable/reference/ImageDraw.html), at twice the size."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from dispatcher.errors import InputError
from dispatcher.plot import HEIGHT, WIDTH, Dot, Drawing, Stroke, Words, svg
from dispatcher.untrusted import printable

_SCALE = 2
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def check_name(path: Path) -> None:
    """Whether the name's ending says a format that there is.

    Raises:
        InputError: `input.plot`.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise InputError("input.plot", f"{str(path)!r} ends neither in .svg nor in .png.")


def write_plot(path: Path, shapes: Drawing) -> None:
    """Writes or replaces the file; its ending says the format.

    Raises:
        InputError: `input.plot` for another ending, `input.not-written`.
    """
    check_name(path)
    content = svg(shapes).encode() if path.suffix.lower() == ".svg" else png(shapes)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError("input.not-written", f"{path} cannot be written ({error.strerror}).") from None


def png(shapes: Drawing) -> bytes:
    """The drawing's pixels, in a PNG file."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH * _SCALE, HEIGHT * _SCALE), "white")
    pen = ImageDraw.Draw(image)
    for shape in shapes:
        match shape:
            case Stroke():
                places = [(x * _SCALE, y * _SCALE) for x, y in shape.places]
                pen.line(places, fill=shape.colour, width=round(shape.width * _SCALE), joint="curve")
            case Dot():
                pen.circle((shape.x * _SCALE, shape.y * _SCALE), shape.radius * _SCALE, fill=shape.colour)
            case Words():
                font = ImageFont.load_default(shape.size * _SCALE)
                place = (shape.x * _SCALE, shape.y * _SCALE)
                pen.text(place, printable(shape.text), fill=shape.colour, font=font, anchor=_ANCHORS[shape.anchor])
    written = BytesIO()
    image.save(written, "PNG", optimize=True)
    return written.getvalue()

"""How an image stands in a request: a data URL, or plain base64. Decodes no image; knows its first bytes."""

from __future__ import annotations

import base64
import re

from bitswitch.errors import InputTooLongError, InvalidRequestError, UnsupportedMediaTypeError

READ = ("PNG", "JPEG", "WEBP")
"""The formats that are read, as Pillow names them."""

_MEDIA_TYPES = frozenset({"image/png", "image/jpeg", "image/jpg", "image/webp"})
_ALIKE = re.compile(r"data:image/[a-z0-9.+-]+(;[^;,]*)*;base64,", re.IGNORECASE)
_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)
# What base64 makes of the first bytes of a PNG, a JPEG and a RIFF file, of which a WebP is one.
_STARTS = ("iVBORw0KGgo", "/9j/", "UklGR")
_SHORTEST = 48
_HEAD = 256
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+[=\s]*")
_SPACE = re.compile(r"\s+")
_WEBP = re.compile(rb"RIFF....WEBP", re.DOTALL)
_OTHERS = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"%PDF": "a PDF",
    b"<svg": "an SVG",
}

FORM = "a data URL (data:image/png;base64,…) or base64, of a PNG, JPEG or WebP file"


def is_image(text: str) -> bool:
    """Whether a text is meant for an image: a data URL of one, or what base64 makes of one."""
    if text.startswith(_STARTS):
        return len(text) >= _SHORTEST and _BASE64.fullmatch(text, 0, _HEAD) is not None
    return _ALIKE.match(text, 0, _HEAD) is not None


def check(text: str, index: int, *, most: int) -> None:
    """Whether a text can be an image, by its first characters and its length.

    Args:
        index: of the input, for the message.
        most: bytes of the file, at most.

    Raises:
        InvalidRequestError: it is a text, or an address.
        InputTooLongError: it is longer than ``most`` bytes make, line breaks included.
    """
    if text[:8].lower().startswith(("http://", "https://")):
        raise _fault(index, "is an address; this server fetches nothing, send the image itself")
    if not text[:5].lower() == "data:" and _BASE64.fullmatch(text, 0, _HEAD) is None:
        raise _fault(index, "is no image")
    if len(text) > most * 3 // 2 + _HEAD:
        raise _too_large(index, most)


def content(text: str, index: int, *, most: int) -> bytes:
    """The bytes of an image's file; arguments as for `check`.

    What the bytes are decides, whichever of the image types a data URL states.

    Raises:
        InvalidRequestError: it is no image, or not base64.
        UnsupportedMediaTypeError: it is a file of another kind.
        InputTooLongError: there are more bytes than ``most``.
    """
    check(text, index, most=most)
    payload = text
    if text[:5].lower() == "data:":
        head = _URL.match(text, 0, _HEAD)
        if head is None or not head[2].lower().endswith(";base64"):
            raise _fault(index, "is a data URL without ';base64,'")
        if head[1].strip().lower() not in _MEDIA_TYPES:
            raise UnsupportedMediaTypeError(
                f"Input {index} is of type {head[1].strip() or 'none'!r}; an image is {FORM}.",
                param=f"input.{index}",
            )
        payload = text[head.end() :]
    packed = _SPACE.sub("", payload)  # as `base64` on the command line breaks it into lines
    if len(packed) * 3 // 4 - packed[-2:].count("=") > most:
        raise _too_large(index, most)
    try:
        data = base64.b64decode(packed, validate=True)
    except ValueError as error:
        what = "is no image" if payload is text else "is not valid base64 after 'base64,'"
        raise _fault(index, what) from error
    _check_kind(data, index)
    return data


def _check_kind(data: bytes, index: int) -> None:
    if data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or _WEBP.match(data):
        return
    other = next((name for start, name in _OTHERS.items() if data.startswith(start)), None)
    if other is None:
        raise _fault(index, "is no image" if data else "is empty")
    raise UnsupportedMediaTypeError(f"Input {index} is {other}; an image is {FORM}.", param=f"input.{index}")


def _fault(index: int, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Input {index} {what}; this server's base reads images, each {FORM}.", param=f"input.{index}"
    )


def _too_large(index: int, most: int) -> InputTooLongError:
    return InputTooLongError(
        f"Input {index} is an image of more than {most} bytes, the most that is read.", param=f"input.{index}"
    )

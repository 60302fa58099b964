"""From an image's file to its pixels, whoever made the file. Knows neither models nor how it was sent.

Nothing is decoded before its size is known to be within bounds: a few kilobytes of PNG can hold a
gigabyte of pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from bitswitch.base.data_url import READ
from bitswitch.errors import InputTooLongError, InvalidRequestError

MOST_OBLONG = 100
"""Times the one side of an image may be the other: processors that scale the shorter one scale both."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image whose header has been read; `open_picture` makes it.

    Attributes:
        index: of the input that it came as, for messages.
        pixels: width times height.
    """

    index: int
    pixels: int
    _image: Image.Image

    def rgb(self) -> Image.Image:
        """Its pixels, eight bits each of red, green and blue, upright.

        As transformers' ``load_image`` makes them: turned as EXIF says, transparency dropped, grey three
        times. Of 16 bits of grey the upper eight are taken, as Pillow does where there are colours.

        Raises:
            InvalidRequestError: the file is damaged or ends too early.
        """
        try:
            upright = ImageOps.exif_transpose(self._image)
            if upright.mode.startswith("I"):
                upright = Image.fromarray((np.asarray(upright).astype(np.uint16) >> 8).astype(np.uint8))
            if upright.mode == "P":
                upright = upright.convert("RGBA")  # or Pillow complains of transparency in a palette
            return upright.convert("RGB")
        except MemoryError:
            raise
        except Exception as error:
            raise _damaged(self.index, error) from error


def open_picture(data: bytes, index: int, *, most_pixels: int) -> Picture:
    """Read the header of a PNG, JPEG or WebP file.

    Raises:
        InvalidRequestError: it cannot be read, moves, or is too oblong.
        InputTooLongError: it has more than ``most_pixels``.
    """
    # Pillow makes room for a WebP's pixels when it opens it.
    _check_size(*_webp_size(data), index, most_pixels)
    try:
        image = Image.open(io.BytesIO(data), formats=READ)
        frames = getattr(image, "n_frames", 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many(index, most_pixels) from error
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(index, error) from error
    _check_size(*image.size, index, most_pixels)
    # What a telephone's JPEG holds beside its photograph: a preview, a depth map.
    if frames > 1 and image.format != "MPO":
        raise InvalidRequestError(
            f"Input {index} is an animation of {frames} frames; send one frame as an image of its own.",
            param=f"input.{index}",
        )
    return Picture(index, image.width * image.height, image)


def _check_size(width: int, height: int, index: int, most: int) -> None:
    if width * height > most:
        raise _too_many(index, most)
    if max(width, height) > MOST_OBLONG * min(width, height):
        raise InvalidRequestError(
            f"Input {index} is {width}×{height} pixels; the longer side of an image is at most"
            f" {MOST_OBLONG} times the shorter.",
            param=f"input.{index}",
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height as a WebP's first chunk states them; 1 and 1 of what is none, or is damaged."""
    kind, body = data[12:16], data[20:30]
    if data[:4] != b"RIFF" or len(body) < 10:
        return 1, 1
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    sides = int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return sides if kind == b"VP8 " and all(sides) else (1, 1)


def _too_many(index: int, most: int) -> InputTooLongError:
    return InputTooLongError(
        f"Input {index} is an image of more than {most} pixels, the most that is decoded; scale it down.",
        param=f"input.{index}",
    )


def _damaged(index: int, error: Exception) -> InvalidRequestError:
    return InvalidRequestError(
        f"Input {index} cannot be decoded as an image: the file is damaged or incomplete"
        f" ({type(error).__name__}).",
        param=f"input.{index}",
    )

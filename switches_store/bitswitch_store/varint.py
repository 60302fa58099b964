"""Whole numbers as bytes, seven bits at a time (LEB128). Knows nothing of what is counted."""

from __future__ import annotations

from bitswitch_store.switch import SwitchError


def varint(number: int) -> bytes:
    """A number in groups of seven bits, lowest first; the top bit of a byte says that more follow."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A number below 2^63 and where the next byte is.

    Raises:
        SwitchError: the data ends inside it, it is longer than needed, or too large.
    """
    number = 0
    for i in range(9):
        if at + i >= len(data):
            raise SwitchError("a number runs past the end of its bytes")
        byte = data[at + i]
        number |= (byte & 127) << (7 * i)
        if byte < 128:
            if byte == 0 and i:
                raise SwitchError("a number is written in more bytes than it needs")
            return number, at + i + 1
    raise SwitchError("a number has more than nine bytes")

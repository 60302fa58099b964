"""From the bytes of a request to pixels: every kind of file that comes, and what must not be decoded."""

import base64
import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from bitswitch.base import data_url
from bitswitch.base.picture import open_picture
from bitswitch.errors import InputTooLongError, InvalidRequestError, UnsupportedMediaTypeError
from tiny import data_url as url
from tiny import picture

MOST = 2**20


def content(text, most=MOST):
    return data_url.content(text, 3, most=most)


def decoded(image, kind="png", **saving):
    return np.asarray(opened(content(url(image, kind, **saving))).rgb())


def opened(data, most_pixels=10_000):
    return open_picture(data, 3, most_pixels=most_pixels)


@pytest.mark.parametrize(("kind", "saving"), [("png", {}), ("webp", {"lossless": True})])
def test_what_was_drawn_is_what_is_seen(kind, saving):
    image = picture(1)
    np.testing.assert_array_equal(decoded(image, kind, **saving), np.asarray(image))


def test_a_jpeg_is_seen_nearly_as_it_was_drawn():
    image = picture(1)
    assert np.abs(decoded(image, "jpeg", quality=95).astype(int) - np.asarray(image)).mean() < 8


def test_the_form_is_free():
    image = picture(2)
    whole = url(image)
    plain = whole.partition(",")[2]
    broken = "\n".join(plain[i : i + 76] for i in range(0, len(plain), 76)) + "\n"
    for form in (
        plain,
        broken,
        whole.replace("data:image/png", "DATA:image/JPEG;charset=x"),
        "data:image/jpg;base64," + plain,
    ):
        assert content(form) == base64.b64decode(plain), form


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("Who wrote Hamlet?", InvalidRequestError, "is no image"),
        ("", InvalidRequestError, "is no image"),
        ("https://example.org/a.png", InvalidRequestError, "fetches nothing"),
        ("data:image/png,abc", InvalidRequestError, "without ';base64,'"),
        ("data:", InvalidRequestError, "without ';base64,'"),
        ("data:image/png;base64,", InvalidRequestError, "is empty"),
        ("data:image/png;base64,a=b", InvalidRequestError, "not valid base64"),
        ("aGFtbGV0", InvalidRequestError, "is no image"),
        ("data:image/png;base64,????", InvalidRequestError, "not valid base64"),
        ("data:image/gif;base64,R0lGODlh", UnsupportedMediaTypeError, "of type 'image/gif'"),
        ("data:;base64,R0lGODlh", UnsupportedMediaTypeError, "of type 'none'"),
        ("R0lGODlhAAAA", UnsupportedMediaTypeError, "is a GIF"),
        ("data:image/png;base64,JVBERi0x", UnsupportedMediaTypeError, "is a PDF"),
        ("UklGRgAAAABXQVZF", InvalidRequestError, "is no image"),  # RIFF, but sound
    ],
)
def test_what_is_no_image_is_named(text, error, says):
    with pytest.raises(error, match=says) as told:
        content(text)
    assert type(told.value) is error
    assert told.value.param == "input.3"


@pytest.mark.parametrize("image", [url(picture()), url(picture(), "jpeg"), url(picture(), "webp")])
def test_a_base_of_texts_knows_an_image(image):
    assert data_url.is_image(image)
    assert data_url.is_image(image.partition(",")[2])


@pytest.mark.parametrize(
    "text", ["data:image/png is a media type", "/9j/ is how JPEGs begin, in base64, " * 3, "UklGR", ""]
)
def test_a_text_about_images_is_a_text(text):
    assert not data_url.is_image(text)


def test_more_bytes_than_may_be_are_not_decoded():
    image = url(picture())
    size = len(content(image))
    assert content(image, most=size)
    with pytest.raises(InputTooLongError, match=f"more than {size - 1} bytes"):
        content(image, most=size - 1)
    with pytest.raises(InputTooLongError):
        data_url.check("A" * 4096, 3, most=1024)


def bomb(width, height):
    """A PNG that states these sides and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("sides", [(101, 100), (12_000, 10_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_more_pixels_than_may_be_are_not_decoded(sides):
    with pytest.raises(InputTooLongError, match="more than 10000 pixels"):
        opened(bomb(*sides))


@pytest.mark.parametrize(
    "saving", [{"lossless": True}, {"quality": 50}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}]
)
def test_a_webp_is_measured_before_pillow_makes_room_for_it(saving, monkeypatch):
    data = content(url(picture(1, (90, 70)), "webp", **saving))
    assert opened(data, 6300).pixels == 6300
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(InputTooLongError, match="more than 6299 pixels"):
        opened(data, 6299)


def test_a_strip_is_no_image():
    with pytest.raises(InvalidRequestError, match="1×101 pixels"):
        opened(content(url(Image.new("RGB", (1, 101)))))
    assert opened(content(url(Image.new("RGB", (1, 100))))).pixels == 100


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_an_animation_is_no_image(kind):
    data = content(url(picture(1), kind, save_all=True, append_images=[picture(2), picture(3)]))
    with pytest.raises(InvalidRequestError, match="animation of 3 frames"):
        opened(data)


def test_the_second_picture_of_a_telephones_jpeg_is_passed_over():
    buffer = io.BytesIO()
    picture(1).save(buffer, "MPO", save_all=True, append_images=[picture(2)])
    alone = decoded(picture(1), "jpeg")
    np.testing.assert_array_equal(np.asarray(opened(buffer.getvalue()).rgb()), alone)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_file_cut_short_is_refused(kind):
    data = content(url(picture(1, (60, 50)), kind))
    for stop in (12, 33, len(data) // 2, len(data) - 40):
        with pytest.raises(InvalidRequestError, match="damaged or incomplete"):
            opened(data[:stop]).rgb()


def test_an_image_is_turned_as_its_camera_was_held():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the left: to be turned back to the right
    image = picture(1)
    for kind in ("jpeg", "png"):
        turned, plain = decoded(image, kind, exif=exif), decoded(image, kind)
        assert turned.shape == (24, 20, 3)
        np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_transparency_is_dropped_and_grey_is_three_colours():
    image = picture(1)
    clear = image.copy()
    clear.putalpha(0)
    np.testing.assert_array_equal(decoded(clear), np.asarray(image))
    grey = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(decoded(image.convert("L")), np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(decoded(image.convert("LA")), np.stack([grey] * 3, -1))
    few = image.quantize(8)
    few.info["transparency"] = bytes([0, 255])
    np.testing.assert_array_equal(
        decoded(few, transparency=bytes([0, 255])), np.asarray(few.convert("RGBA"))[..., :3]
    )
    assert set(decoded(image.convert("1")).ravel().tolist()) <= {0, 255}


def test_sixteen_bits_of_grey_keep_their_upper_eight():
    deep = np.arange(400, dtype=np.uint16).reshape(20, 20) * 163
    shown = decoded(Image.fromarray(deep))
    np.testing.assert_array_equal(shown, np.stack([deep >> 8] * 3, -1))


def test_ink_is_shown_as_light():
    assert decoded(picture(1).convert("CMYK"), "jpeg").shape == (20, 24, 3)


@given(some.binary(max_size=60), some.sampled_from(["png", "jpeg", "webp"]), some.integers(0, 400))
def test_whatever_comes_is_an_image_or_refused(noise, kind, place):
    good = bytearray(content(url(picture(1), kind)))
    good[place : place + len(noise)] = noise
    with suppress(InvalidRequestError):
        assert np.asarray(opened(content(base64.b64encode(good).decode()), 2**20).rgb()).shape[2] == 3

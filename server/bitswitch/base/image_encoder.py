"""From images to rows of pixels and from rows to a batch. Knows image processors; nothing of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedModel

from bitswitch.base import data_url
from bitswitch.base.faults import BaseError
from bitswitch.base.picture import open_picture
from bitswitch.core import InputLimits, Inputs, Row, Want
from bitswitch.errors import InputTooLongError, InvalidRequestError

_FIELD = "pixel_values"


class ImageEncoder:
    """The base's image processor, safe to use from many threads at once: it keeps nothing between calls.

    Args:
        processor: transformers' own, of the Pillow kind: what it makes of an image depends neither on
            torchvision nor on its version.
        model: the base, to see what it makes of an image; it runs once.
        limits: of images.

    Attributes:
        patches: tokens that the model makes of any image, special ones included.

    Raises:
        BaseError: images do not all become of one shape, or the model is no vision transformer: one that
            has as many tokens of one width after each of its layers.
    """

    kind: Literal["image"] = "image"

    def __init__(self, processor: Any, model: PreTrainedModel, *, limits: InputLimits) -> None:  # noqa: ANN401
        self._processor = processor
        self._limits = limits
        self._dtype = model.dtype
        wide, high = self._pixels(Image.new("RGB", (96, 64))), self._pixels(Image.new("RGB", (64, 96)))
        if wide.shape != high.shape:
            raise BaseError(
                f"the image processor makes {wide.shape} of a wide image and {high.shape} of a high one;"
                " a base needs all of one shape: set size to height and width, or crop_size, in"
                " preprocessor_config.json"
            )
        self.patches = _patches(model, torch.from_numpy(wide).unsqueeze(0).to(model.device, model.dtype))

    def check(self, inputs: Inputs, *, want: Want) -> None:
        """Whether these can be images, by their first characters and their lengths.

        Raises:
            InvalidRequestError: one is a text, a pair or an address; or an embedding is wanted.
            InputTooLongError: one is longer than may be.
        """
        if want is Want.EMBED:
            raise InvalidRequestError(
                "Embeddings are of texts, and this server's base reads images; ask /v1/classify or /v1/route."
            )
        for index, one in enumerate(inputs):
            data_url.check(_single(one, index), index, most=self._limits.image_bytes)

    def guess(self, inputs: Inputs) -> int:
        """How many tokens these will have."""
        return len(inputs) * self.patches

    def __call__(self, inputs: Inputs, *, want: Want) -> tuple[Row, ...]:
        """Decode. All headers are read before any pixel is.

        Raises:
            InvalidRequestError: one is no image, or damaged.
            UnsupportedMediaTypeError: one is a file of another kind.
            InputTooLongError: one has too many bytes or pixels, or all together have.
        """
        most = self._limits.image_bytes
        contents = [
            data_url.content(_single(one, index), index, most=most) for index, one in enumerate(inputs)
        ]
        pictures = [
            open_picture(content, index, most_pixels=self._limits.image_pixels)
            for index, content in enumerate(contents)
        ]
        total = sum(picture.pixels for picture in pictures)
        if total > self._limits.request_pixels:
            raise InputTooLongError(
                f"The images have {total} pixels together; one request has at most"
                f" {self._limits.request_pixels}: send fewer per request, or scale them down.",
                param="input",
            )
        return tuple(self._row(picture.rgb()) for picture in pictures)

    def samples(self) -> tuple[Row, ...]:
        """Three, which differ."""
        gradient = Image.linear_gradient("L")
        some = (gradient, gradient.rotate(90), Image.radial_gradient("L"))
        return tuple(self._row(image.convert("RGB")) for image in some)

    def pad(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """One batch of ``rows``: (rows, channels, height, width) in the base's dtype; there is no padding."""
        stacked = np.stack([np.asarray(row.fields[_FIELD], np.float32) for row in rows])
        return {_FIELD: torch.from_numpy(stacked).to(self._dtype)}

    def _row(self, image: Image.Image) -> Row:
        return Row({_FIELD: self._pixels(image)}, patches=self.patches)

    def _pixels(self, image: Image.Image) -> NDArray[np.float32]:
        pixels = self._processor(image, return_tensors="np")[_FIELD][0]
        return np.ascontiguousarray(pixels, dtype=np.float32)


def _single(one: str | tuple[str, str], index: int) -> str:
    if isinstance(one, str):
        return one
    raise InvalidRequestError(
        f"Input {index} is a pair; this server's base reads images, each {data_url.FORM}.",
        param=f"input.{index}",
    )


@torch.inference_mode()
def _patches(model: PreTrainedModel, pixels: torch.Tensor) -> int:
    """Tokens of an image, once the model is found to be a vision transformer."""
    name, config = type(model).__name__, model.config
    try:
        output = model(pixel_values=pixels, output_hidden_states=True, return_dict=True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise BaseError(f"{name} does not run on what its image processor makes: {error}") from error
    shapes = {tuple(state.shape) for state in (*output.hidden_states, output.last_hidden_state)}
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if len(output.hidden_states) - 1 == layers and len(shapes) == 1:
        (shape,) = shapes
        if len(shape) == 3 and shape[-1] == width:
            return int(shape[1])
    raise BaseError(
        f"{name} is no vision transformer such as ViT, DeiT, BEiT or DINOv2, with as many tokens of one width"
        " after each layer; others cannot be a base yet"
    )

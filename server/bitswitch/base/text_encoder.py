"""From texts to token rows and from rows to a padded batch. Knows tokenizers; nothing of weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerBase

from bitswitch.base.data_url import is_image
from bitswitch.base.faults import BaseError
from bitswitch.base.style import style
from bitswitch.core import InputLimits, Inputs, Row, Want
from bitswitch.errors import InputTooLongError, InvalidRequestError

_CHARS = 4
"""Characters of a token, about."""

_SAMPLES = (
    "one two",
    "the second is a longer text of some words",
    "What a pass costs is measured on this text, of a length as requests have it",
)


class TextEncoder:
    """The base's tokenizer, safe to use from many threads at once.

    transformers' tokenizers set truncation and padding on one shared object at every call, so two
    threads that want different lengths cut each other's texts. Here each length has its own copy
    of the Rust tokenizer, set up once and only read afterwards.
    """

    kind: Literal["text"] = "text"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        accepted: Collection[str],
        limit: int,
        embed_limit: int,
        embed_lowercase: bool = False,
        limits: InputLimits = InputLimits(),  # noqa: B008 - frozen
    ) -> None:
        """Set up both copies.

        Args:
            accepted: names of the inputs that the model's forward takes.
            limit: longest row in tokens, special ones included.
            embed_limit: the same for `Want.EMBED`.
            embed_lowercase: lowercase texts for `Want.EMBED` before all else.
            limits: of one text, for `check`.

        Raises:
            BaseError: the tokenizer is not one of the ``tokenizers`` library, or has no padding token.
        """
        if not tokenizer.is_fast:
            raise BaseError(f"{type(tokenizer).__name__} has no tokenizer.json; a fast tokenizer is needed")
        if tokenizer.pad_token_id is None:
            raise BaseError("the tokenizer has no padding token; set pad_token in tokenizer_config.json")
        self.limit = limit
        self.embed_limit = embed_limit
        self._most_chars = limits.text_chars
        names = [name for name in tokenizer.model_input_names if name in accepted]
        self._types = "token_type_ids" in names
        self._padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        self._plain = _copy(tokenizer, limit)
        self._embed = _copy(tokenizer, embed_limit)
        if embed_lowercase:
            own = self._embed.normalizer
            chain = [normalizers.Lowercase(), *([own] if own is not None else [])]
            self._embed.normalizer = normalizers.Sequence(chain)

    def check(self, inputs: Inputs, *, want: Want) -> None:
        """Whether these are texts, and none too long, at the price of looking at their lengths.

        Raises:
            InvalidRequestError: one is an image.
            InputTooLongError: one has more characters than may be.
        """
        for index, one in enumerate(inputs):
            texts = (one,) if isinstance(one, str) else one
            if any(map(is_image, texts)):
                raise InvalidRequestError(
                    f"Input {index} is an image; this server's base reads texts.", param=f"input.{index}"
                )
            longest = max(map(len, texts))
            if longest > self._most_chars:
                raise InputTooLongError(
                    f"Input {index} has a text of {longest} characters;"
                    f" one text has at most {self._most_chars}.",
                    param=f"input.{index}",
                )

    def samples(self) -> tuple[Row, ...]:
        """A few of different lengths, the last of a length as requests have it."""
        return self(_SAMPLES, want=Want.CLASSIFY)

    def guess(self, inputs: Inputs) -> int:
        """How many tokens these will have, about, at the price of looking at their lengths."""
        lengths = (len(one) if isinstance(one, str) else sum(map(len, one)) for one in inputs)
        return sum(min(2 + length // _CHARS, self.limit) for length in lengths)

    def __call__(self, inputs: Inputs, *, want: Want) -> tuple[Row, ...]:
        """Tokenize.

        The rows are those of ``tokenizer(texts, pairs, truncation=True, max_length=limit)``: pairs are
        cut longest first. A pair whose second text is empty stays a pair, as in the library's batches
        (its call with one single text takes it for a text without a pair).

        Raises:
            InvalidRequestError: a text holds half of a surrogate pair, which is no character.
        """
        if not inputs:
            return ()
        tokenizer = self._embed if want is Want.EMBED else self._plain
        try:
            encodings = tokenizer.encode_batch(list(inputs))
        except TypeError:
            _refuse_surrogates(inputs)
            raise
        return tuple(
            Row(
                fields={"input_ids": e.ids, "token_type_ids": e.type_ids}
                if self._types
                else {"input_ids": e.ids},
                truncated=bool(e.overflowing),
                style=style((one,) if isinstance(one, str) else one) if want is Want.FEATURES else None,
            )
            for one, e in zip(inputs, encodings, strict=True)
        )

    def pad(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """One batch of ``rows``, padded to the longest.

        Always on the right, whatever the tokenizer prefers: encoders count positions from the left,
        so only there a row in a batch gets the answer it gets alone.

        Returns:
            int64 (rows, length) by input name, ``attention_mask`` among them.
        """
        lengths = np.array([row.length for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        fields = {}
        for name in rows[0].fields:
            padded = np.full(mask.shape, self._padding[name], np.int64)
            padded[mask] = np.concatenate([row.fields[name] for row in rows])
            fields[name] = torch.from_numpy(padded)
        return {**fields, "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def _copy(tokenizer: PreTrainedTokenizerBase, limit: int) -> Tokenizer:
    own: Tokenizer = tokenizer.backend_tokenizer
    copy: Tokenizer = Tokenizer.from_str(own.to_str())
    copy.no_padding()
    copy.enable_truncation(limit, strategy="longest_first", direction=tokenizer.truncation_side)
    copy.encode_special_tokens = tokenizer.split_special_tokens
    return copy


def _refuse_surrogates(inputs: Inputs) -> None:
    for i, item in enumerate(inputs):
        for text in (item,) if isinstance(item, str) else item:
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise InvalidRequestError(
                    f"input {i} holds half of a surrogate pair; texts are valid Unicode", param="input"
                )

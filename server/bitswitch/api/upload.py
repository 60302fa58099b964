"""The form of an upload: its file goes to disk as it comes, its fields are few and short.

Knows nothing of what a switch is. Starlette's own reading of forms would spool the file elsewhere, and
`await file.read()` would have it whole in memory.
"""

from __future__ import annotations

import hmac
import re
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from bitswitch.api.door import media_type
from bitswitch.errors import DigestMismatchError, InvalidRequestError, UnsupportedMediaTypeError
from bitswitch_store.store import Upload

DIGEST_HEADER = "x-content-sha256"
_DIGEST = re.compile(r"(sha256:)?([0-9a-fA-F]{64})")

FIELDS: dict[str, Any] = {
    "file": {"type": "string", "format": "binary", "description": "A file that `bitswitch make` wrote."},
    "name": {"type": "string", "description": "The name to publish it under; its task if not given."},
    "public": {"type": "boolean", "default": False, "description": "Whether other tenants see it."},
    "digest": {
        "type": "string",
        "description": "The file's SHA-256, 64 hex digits; refused if it is another."
        f" May also be given as the header {DIGEST_HEADER}.",
    },
}


@dataclass(frozen=True)
class Fields:
    """What a form says beside its file."""

    name: str | None
    public: bool


class _Sink:
    """An `Upload` as the parser wants a file."""

    def __init__(self, upload: Upload) -> None:
        self.write = upload.write

    def seek(self, _offset: int) -> None:
        """To the beginning, once the file is whole; nobody reads it here."""

    def close(self) -> None:
        """Whoever made the upload ends it."""


class _Parser(MultiPartParser):
    """Writes the one file into an upload."""

    def __init__(self, request: Request, stream: Any, upload: Upload) -> None:  # noqa: ANN401
        super().__init__(request.headers, stream, max_files=1, max_fields=len(FIELDS), max_part_size=1024)
        self._upload = upload

    def on_headers_finished(self) -> None:
        """A part begins."""
        super().on_headers_finished()
        if (file := self._current_part.file) is not None:
            file.file.close()
            file.file = cast("Any", _Sink(self._upload))


async def read_form(request: Request, upload: Upload) -> Fields:
    """Read the whole form: its file into ``upload``.

    Raises:
        InvalidRequestError: it is no such form, or not of this file's digest.
        TooLarge: the file is larger than the upload may be.
    """
    if media_type(request) != "multipart/form-data":
        raise UnsupportedMediaTypeError(
            "The upload is no form; send 'multipart/form-data' with the file as 'file' (curl -F file=@PATH)."
        )
    try:
        async with aclosing(request.stream()) as stream:
            form = await _Parser(request, stream, upload).parse()
    except MultiPartException as error:
        raise InvalidRequestError(error.message) from error
    fields = _fields(form)
    for stated in (form.get("digest"), request.headers.get(DIGEST_HEADER)):
        if stated is not None:
            _check_digest(stated, upload)
    return fields


def _fields(form: FormData) -> Fields:
    for field in form:
        if field not in FIELDS:
            raise InvalidRequestError(
                f"{field[:100]!r} is not a field of this form; known are {', '.join(FIELDS)}.",
                param=field[:100],
            )
        if len(form.getlist(field)) > 1:
            raise InvalidRequestError(f"{field!r} is given more than once.", param=field)
    file, name, public = form.get("file"), form.get("name"), form.get("public", "false")
    if not isinstance(file, UploadFile):
        raise InvalidRequestError(
            "There is no 'file' in the form; send it with curl -F file=@PATH.", param="file"
        )
    if isinstance(name, UploadFile):
        raise InvalidRequestError("'name' is a file; it is a text.", param="name")
    if public not in ("true", "false"):
        raise InvalidRequestError("'public' is neither 'true' nor 'false'.", param="public")
    return Fields(name, public == "true")


def _check_digest(stated: UploadFile | str, upload: Upload) -> None:
    match = _DIGEST.fullmatch(stated) if isinstance(stated, str) else None
    if match is None:
        raise InvalidRequestError("The digest is not the 64 hex digits of a SHA-256.", param="digest")
    found = upload.digest.removeprefix("sha256:")
    if not hmac.compare_digest(found, match[2].lower()):
        raise DigestMismatchError(
            f"The file's SHA-256 is {found}, not the one stated; send it again.", param="digest"
        )

"""Where a store's blobs are: a URL, or nothing, becomes `Blobs`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from bitswitch_store.blobs import Blobs, DirectoryBlobs
from bitswitch_store.cache import Cache
from bitswitch_store.errors import StoreError

CACHE_BYTES = 8 * 2**30
"""Of the copies of an object store's blobs, unless told otherwise."""


def open_blobs(root: Path, url: str | None = None, *, cache_bytes: int = CACHE_BYTES) -> Blobs:
    """The blobs of the store at ``root``.

    Args:
        url: ``s3://bucket/prefix``, ``gs://…``, ``az://…`` or ``file:///folder``; None is ``root/blobs``.
        cache_bytes: of the copies kept in ``root/cache`` of an object store's blobs.

    Raises:
        StoreError: they cannot be kept there; the message says why.
    """
    if url is None:
        return DirectoryBlobs(root / "blobs")
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.strip("/"):
            raise StoreError(f"blobs cannot be kept in {url}; give a folder as file:///path/of/it")
        return DirectoryBlobs(Path(unquote(parts.path)))
    try:
        from bitswitch_store.object_blobs import ObjectBlobs, open_objects  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StoreError(
            f"blobs in {url} need the package obstore; install bitswitch with the extra 'objects'"
        ) from error
    return ObjectBlobs(open_objects(url), cache=Cache(root / "cache", cache_bytes), shown=url)

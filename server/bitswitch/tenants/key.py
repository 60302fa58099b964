"""A key: a text that its holder shows, of which the server keeps an id and a keyed hash.

``bsw_<id>_<secret>``: the id is public and names the row, the secret has 256 bits. The hash is
HMAC-SHA256 under the server's own secret: whoever reads the database can neither use a key nor try one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from base64 import b32encode
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bitswitch.tenants.caller import Role

SECRET_FILE = "key.secret"
_KEY = re.compile(r"bsw_(?P<id>[a-z2-7]{13})_[A-Za-z0-9_-]{43}")
_SECRET_BYTES = 32


@dataclass(frozen=True)
class Key:
    """What the database knows of a key.

    Attributes:
        hash: see `hashed`; hexadecimal.
        note: what its maker wrote beside it.
        expires: when it ends by itself; None for never.
        revoked: when it was taken back; None if it was not. May lie ahead, after a rotation.
    """

    id: str
    tenant: str
    role: Role
    hash: str
    note: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def ended(self, now: datetime) -> bool:
        """Whether it opens nothing any more."""
        return any(end is not None and end <= now for end in (self.expires, self.revoked))


def new_key() -> tuple[str, str]:
    """An id, and the whole key with it."""
    name = b32encode(secrets.token_bytes(8)).decode().rstrip("=").lower()
    return name, f"bsw_{name}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def key_id(text: str) -> str | None:
    """The id in a key; None if it has not the form of one."""
    match = _KEY.fullmatch(text)
    return match["id"] if match else None


def hashed(text: str, secret: bytes) -> str:
    """The keyed hash of a key's text, 64 hexadecimal digits."""
    return hmac.new(secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def read_secret(root: Path) -> bytes:
    """The secret of the store at ``root``; made at the first time, readable by its owner alone.

    Servers that share a database and not a folder need the setting ``key_secret`` instead.

    Raises:
        ValueError: the file is not one that was written here, or others may read it.
        OSError: it cannot be read or written.
    """
    place = root / SECRET_FILE
    if not place.exists():
        root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=root, prefix=f".{SECRET_FILE}.")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_hex(_SECRET_BYTES).encode())
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was first: its secret holds
                os.link(name, place)
        finally:
            Path(name).unlink()
        folder = os.open(root, os.O_RDONLY)
        try:
            os.fsync(folder)  # or a power cut could take the secret, and leave the keys hashed with it
        finally:
            os.close(folder)
    if place.stat().st_mode & 0o077:
        raise ValueError(f"{place} can be read by others than its owner; chmod 600 it, and rotate the keys")
    text = place.read_text(encoding="ascii", errors="replace").strip()
    if len(text) != 2 * _SECRET_BYTES:
        raise ValueError(
            f"{place} does not hold the secret that keys are hashed with; bring it back from a backup, or"
            " delete it and make all keys anew"
        )
    return text.encode()

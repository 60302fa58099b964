"""An object store that is slow, or silent: what takes long to send is sent, silence is given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import s3
from bitswitch_store.blobs import Blobs, digest_of
from bitswitch_store.errors import StoreUnavailable
from bitswitch_store.place import open_blobs

SILENCE = 0.2
NOTHING = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></ListBucketResult>'


class SlowServer(ThreadingHTTPServer):
    """As much of S3 as a put needs. It is `seconds` over each object; once silent, it answers no question."""

    seconds = 0.0
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: list[bytes] = []
        self.silent = threading.Event()
        self.done = threading.Event()

    def handle_error(self, *_args: object) -> None:
        """A client that gave up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowServer

    def do_GET(self) -> None:
        self._hear()
        self._answer(200, NOTHING)

    def do_HEAD(self) -> None:
        self._hear()
        self._answer(404)

    def do_PUT(self) -> None:
        half = int(self.headers["content-length"]) // 2
        data = self.rfile.read(half)
        time.sleep(self.server.seconds)
        self.server.kept.append(data + self.rfile.read(half))
        self._answer(200)

    def _hear(self) -> None:
        if self.server.silent.is_set():
            self.server.done.wait()

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("etag", '"any"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Not on the test's screen."""


@pytest.fixture
def server() -> Iterator[SlowServer]:
    with SlowServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.done.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def blobs(server: SlowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    object_blobs = pytest.importorskip("bitswitch_store.object_blobs", reason="obstore is not installed")
    monkeypatch.setattr(object_blobs, "_SILENCE", timedelta(seconds=SILENCE))
    for name, value in s3.environment(f"http://127.0.0.1:{server.server_port}").items():
        monkeypatch.setenv(name, value)
    return open_blobs(tmp_path, "s3://bucket/prefix")


@pytest.mark.parametrize("adopted", [False, True], ids=["put", "adopted"])
def test_an_object_that_takes_long_to_send_is_kept(
    server: SlowServer, blobs: Blobs, tmp_path: Path, adopted: bool
):
    server.seconds = 3 * SILENCE
    data = bytes(2**22)  # more than the sockets hold: the client is still sending when the silence is over
    if adopted:
        (tmp_path / "file").write_bytes(data)
        blobs.adopt(tmp_path / "file", digest_of(data))
    else:
        blobs.put(data)
    assert server.kept == [data]


def test_a_silent_store_is_given_up_without_sending_anything(server: SlowServer, blobs: Blobs):
    server.silent.set()
    for ask in (lambda: blobs.put(b"data"), lambda: blobs.raw("sha256:" + "0" * 64)):
        with pytest.raises(StoreUnavailable, match="does not answer"):
            ask()
    assert server.kept == []

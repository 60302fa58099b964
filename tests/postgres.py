"""A real PostgreSQL server of Debian's package, in a folder of its own, behind a unix socket.

`initdb` refuses root: there the server runs as the package's user ``postgres``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from sqlalchemy import URL, make_url

GIVEN = "TEST_POSTGRES_URL"
"""A server to use instead, as postgresql://user@host/database; a schema per test is made in it."""
_USER = "postgres"
_schemas = count()


class NoPostgresError(RuntimeError):
    """There is no server to be had; the message says why."""


def binaries() -> Path:
    """The newest installed server's programs."""
    if on_path := shutil.which("initdb"):
        return Path(on_path).parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not found:
        raise NoPostgresError(
            f"no PostgreSQL server is installed (apt install postgresql), nor is {GIVEN} set"
        )
    return found[-1].parent


class Server:
    """A server that runs; ``process`` is its postmaster."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder = folder
        self._programs = programs
        self._as_user = [shutil.which("setpriv"), f"--reuid={_USER}", f"--regid={_USER}", "--init-groups"]
        if os.geteuid() != 0:
            self._as_user = []
        elif self._as_user[0] is None:
            raise NoPostgresError(
                "root may not run a PostgreSQL server, and there is no setpriv to be another"
            )

    @property
    def url(self) -> URL:
        return URL.create("postgresql", _USER, database="postgres", query={"host": str(self._folder)})

    def create(self) -> None:
        if self._as_user:
            shutil.chown(self._folder, _USER, _USER)
        self._run("initdb", "--auth=trust", f"--username={_USER}", "--no-sync", "--encoding=UTF8")

    def start(self) -> None:
        # A quick one: nothing here has to outlive the machine.
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c fsync=off"
        options += " -c full_page_writes=off -c max_connections=200"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", f"--options={options}")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def signal(self, number: signal.Signals) -> None:
        """To the postmaster and to all that it started."""
        master = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        for process in (master, *map(int, children)):
            os.kill(process, number)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, self._programs / program, "-D", self._folder / "data", *arguments]
        # Not a pipe: the server would inherit it, and hold it open.
        with (self._folder / "said").open("w") as said:
            done = subprocess.run(command, stdout=said, stderr=said, cwd="/", check=False)
        if done.returncode:
            raise NoPostgresError(f"{program} failed: {(self._folder / 'said').read_text().strip()[-500:]}")


@contextmanager
def server() -> Iterator[Server]:
    """A new server, for as long as the block lasts."""
    folder = Path(mkdtemp(prefix="bitswitch-postgres-"))  # short: a socket's path has 107 characters at most
    try:
        one = Server(folder, binaries())
        try:
            one.create()
            one.start()
        except (OSError, LookupError) as error:
            raise NoPostgresError(f"a PostgreSQL server cannot be started here: {error}") from error
        try:
            yield one
        finally:
            one.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database() -> Iterator[URL]:
    """The URL of a server's database: the one given, or a new server's."""
    if given := os.environ.get(GIVEN):
        yield make_url(given)
    else:
        with server() as one:
            yield one.url


def schema(url: URL) -> URL:
    """The same database, with a new and empty schema to work in."""
    import psycopg

    name = f"bitswitch_test_{os.getpid()}_{next(_schemas)}"
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return url.update_query_dict({"options": f"-c search_path={name}"})

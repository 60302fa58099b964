"""schemathesis against a real server: thousands of requests made of the API's own description, all checks.

With a key and without: what needs one must say so, and what has one must be as it is described.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Bar, Report, Table
from benchmarks.servers import PATIENT, Server, bitswitch
from benchmarks.setting import Setting
from benchmarks.soak import make_key
from benchmarks.switches import publish_random
from bitswitch.base.load import load
from bitswitch_store.store import Store

LEAST = 5000
_EXAMPLES, _QUICK = 120, 1
_OPERATIONS = r"/v1/classify|/v1/switches/\{name\}$"
_REFUSED = '["2xx", "400", "401", "403", "404", "409", "413", "415", "422", "429"]'
"""What no schema can say of a valid body: whether a name is one, an input is near a switch, and the like."""
_CONDITIONS = (
    "schemathesis with its phases examples, coverage and fuzzing and every check, over the whole OpenAPI"
    " document of one `bitswitch serve` with keys, once as an admin and once without a key. A body that fits"
    " its schema may still be refused with a 4xx, such as a name that nobody published; everything else is as"
    " schemathesis has it."
)


@dataclass(frozen=True)
class Found:
    """What one run found: cases, failures, and its own words."""

    cases: int
    failures: int
    text: str


def run(setting: Setting) -> Report:
    """With a key and without, at one server."""
    report = Report("The API against its own description", _CONDITIONS)
    folder = setting.scratch / "store"
    base = load(setting.base)
    store = Store(folder, base=base.identity)
    publish_random(store, base, 0.015, 2)
    store.close()
    del base
    key = make_key(folder, "default", "admin")
    # No limit: what is asked for is what happens, not how often.
    with bitswitch(setting.base, folder, **PATIENT) as server:
        found = {
            "with a key": check(server, setting.scratch, key=key, quick=setting.quick),
            "without": check(server, setting.scratch, key=None, quick=setting.quick),
        }
    rows = [(name, one.cases, one.failures) for name, one in found.items()]
    report.tables.append(Table("Cases", ("", "cases", "failures"), rows))
    for one in found.values():
        if one.failures:
            print(one.text)
    cases, failures = (sum(getattr(one, part) for one in found.values()) for part in ("cases", "failures"))
    report.bars += [
        Bar("cases", cases, 1 if setting.quick else LEAST, at_most=False),
        Bar("failures", failures, 0),
    ]
    return report


def check(server: Server, scratch: Path, *, key: str | None, quick: bool) -> Found:
    """One run of schemathesis.

    Raises:
        RuntimeError: it did not get to its end.
    """
    settings = scratch / "schemathesis.toml"
    settings.write_text(f"[checks.positive_data_acceptance]\nexpected-statuses = {_REFUSED}\n")
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(settings), "run"]
    command += [f"http://127.0.0.1:{server.port}/openapi.json", "--seed", "1", "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "60", "--continue-on-failure"]
    command += ["--max-examples", str(_QUICK if quick else _EXAMPLES)]
    if quick:
        command += ["--include-path-regex", _OPERATIONS]
    if key is not None:
        command += ["--header", f"Authorization: Bearer {key}"]
    done = subprocess.run(command, text=True, capture_output=True, cwd=scratch, check=False)
    told = re.search(r"(\d+) generated(?:, (\d+) found)?", done.stdout)
    if told is None or done.returncode not in {0, 1}:
        raise RuntimeError(f"schemathesis ended with status {done.returncode}:\n{done.stdout}\n{done.stderr}")
    failures = int(told[2] or 0)
    if (failures > 0) != (done.returncode == 1):
        raise RuntimeError(f"schemathesis did not find its way:\n{done.stdout}")
    return Found(int(told[1]), failures, done.stdout)

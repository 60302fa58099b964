"""``python -m benchmarks``: measure some subjects or all, print what was found, write it to ``docs/bench``.

Knows which subjects there are, and nothing of what they measure.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path

from bitswitch.cli.threads import let_threads_doze

let_threads_doze()  # as the server does: before what follows loads torch

from benchmarks.report import write  # noqa: E402
from benchmarks.setting import Setting, machine  # noqa: E402
from bitswitch.cli.demo import demo_base  # noqa: E402

SUBJECTS = (
    "switching",
    "variants",
    "mixed",
    "serving",
    "bare",
    "fairness",
    "stored",
    "routes",
    "overload",
    "soak",
    "contract",
    "fuzz",
    "isolation",
    "crash",
)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"{', '.join(SUBJECTS)}; all if none")
    parser.add_argument("--quick", action="store_true", help="only run through; nothing is written")
    parser.add_argument("--no-rivals", action="store_true", help="leave out those that need an environment")
    parser.add_argument("--rivals", type=Path, default=Path(".venv-rivals"), help="their environments")
    parser.add_argument("--base", type=Path, help="the base model's folder; the demo's if not given")
    parser.add_argument("--switches", type=Path, default=Path("demo/switches"), help="real switch files")
    parser.add_argument("--out", type=Path, default=Path("docs/bench"), help="where pages and pictures go")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long the soak lasts")
    options = parser.parse_args()
    if unknown := set(options.subjects) - set(SUBJECTS):
        parser.error(f"unknown subject {', '.join(sorted(unknown))}; known are {', '.join(SUBJECTS)}")
    print(machine(), flush=True)
    for subject in options.subjects or SUBJECTS:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="bitswitch-bench-") as scratch:
            setting = Setting(
                base=options.base or demo_base(),
                switches=options.switches,
                scratch=Path(scratch),
                quick=options.quick,
                minutes=options.minutes,
                rivals=None if options.no_rivals else options.rivals.absolute(),
            )
            # Imported when its turn comes: some need what others do not.
            report = importlib.import_module(f"benchmarks.{subject}").run(setting)
        print(f"\n{report.text(f'make bench ARGS={subject}', '')}", flush=True)
        print(f"({subject}: {time.perf_counter() - started:.0f} s)", flush=True)
        if not options.quick:
            write(report, subject, options.out, command=f"make bench ARGS={subject}", machine=machine())


if __name__ == "__main__":
    main()

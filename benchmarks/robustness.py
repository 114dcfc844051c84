"""prepare on a folder of odd and damaged files: an outcome with a reason for each, no crash, no hang, bounded memory.

python benchmarks/robustness.py FOLDER
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from data_tools.building.ledger import general, read_ledger

ROOT = Path(__file__).parents[1]
LOOK = 0.1  # seconds between two looks at memory


def main() -> None:
    """Run, print what became of the files, and the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("options", nargs="*", help="keys of prepare, e.g. masks.kind=unlc time_limit=60")
    given = parser.parse_args()
    # every file, whatever its name says; tables of the collection itself are no films
    files = sorted(p for p in given.folder.rglob("*") if p.is_file() and p.suffix not in (".csv", ".md"))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        names = [str(path.resolve()) for path in files]
        (work / "list.txt").write_text("".join(f"{name}\n" for name in names), "utf-8", "surrogateescape")
        options = [f"input={work / 'list.txt'}", f"output={work / 'data'}", "masks.kind=none", *given.options]
        begun = time.monotonic()
        command = [sys.executable, "-m", "data_tools", "prepare", *options]
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak = watch(psutil.Process(run.pid))
        status = run.wait()
        outcomes = read_ledger(work / "data") if status == 0 else []
        verified = subprocess.run(
            [sys.executable, "-m", "data_tools", "verify", str(work / "data")], cwd=ROOT, stdout=subprocess.DEVNULL
        )
    for reason, count in Counter(general(o.reason) or "used" for o in outcomes).most_common():
        print(f"{count:5} {reason}")
    reasons = [o.reason for o in outcomes if o.status == "failed"]
    figures: dict[str, Any] = {
        "files": len(files),
        "outcomes": sum(o.status == "used" or bool(o.reason) for o in outcomes),
        "crashes": sum("died" in r for r in reasons) + (status != 0),
        "hangs": sum("no progress" in r or "took longer" in r for r in reasons),
        "peak_mb": round(max(peak.values(), default=0) / 1e6),  # of the largest single process
        "used": sum(o.status == "used" for o in outcomes),
        "failed_otherwise": sum("died" not in r and "no progress" not in r and "took longer" not in r for r in reasons),
        "verified": verified.returncode == 0,
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(json.dumps(figures))


def watch(process: psutil.Process) -> dict[int, int]:
    """Largest resident memory of a process and each of its descendants, until it ends."""
    peak: dict[int, int] = {}
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        with contextlib.suppress(psutil.Error):
            for one in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    peak[one.pid] = max(peak.get(one.pid, 0), one.memory_info().rss)
        time.sleep(LOOK)
    return peak


if __name__ == "__main__":
    main()

"""Files that are damaged at random are read right or refused by name; none crashes, hangs or fills the memory."""

from __future__ import annotations

import os
import subprocess
import sys

#: Longer by hand: OMNISINK_FUZZ_SECONDS=600 OMNISINK_FUZZ_SEED=7 make test ARGS="-k fuzz".
SECONDS = float(os.environ.get("OMNISINK_FUZZ_SECONDS", "10"))
SEED = int(os.environ.get("OMNISINK_FUZZ_SEED", "0"))


def test_damaged_files_are_read_or_refused():
    command = [sys.executable, "-m", "tests.media.fuzz", "--seconds", str(SECONDS), "--seed", str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 240)
    said = "\n".join(done.stderr.splitlines()[-40:])
    assert done.returncode == 0, f"the child ended with {done.returncode}:\n{said}"
    files, rest = done.stdout.split(" files, ")
    assert int(files) > 20
    assert "'read'" in rest
    assert "'refused'" in rest

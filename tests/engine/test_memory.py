import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from ponder3d.engine.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no glibc")
for _ in range(2):  # the second time it may have what the first has freed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(50_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again_instead_of_being_taken_from_the_system():
    faults = {}
    for what in ("keep", "default"):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        command = [sys.executable, "-c", PROGRAM, what]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.stderr.strip() == "no glibc":
            pytest.skip(done.stderr.strip())
        faults[what] = int(done.stdout)
    # 50 MB are 12 000 pages of 4 kB; huge pages make it fewer.
    assert faults["keep"] < 100 < faults["default"] or faults["default"] < 100

"""Files that claim more than they hold, read in a process of its own: how many are refused, and with what memory."""

import subprocess
import sys


def refusals(folder, suffix, reader):
    """(files refused with WeightsError, KiB of memory taken); `reader` is module:function, called with each path."""
    module, function = reader.split(":")
    code = f"""
import resource
from pathlib import Path
from foretoken.errors import WeightsError
from {module} import {function}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path({str(folder)!r}).glob("*{suffix}")):
    try:
        {function}(path)
    except WeightsError:
        print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(lines[:-1]) <= {"refused"}
    return len(lines) - 1, int(lines[-1])

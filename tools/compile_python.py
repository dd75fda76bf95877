"""Translates modules that run inside every round from Python to C, with mypyc; called by CMake.

    python tools/compile_python.py FOLDER MODULE.py …

Run from the folder that holds the package. Writes FOLDER/foretoken/__native_compiled.c, which has all modules, and a
small file per module that Python loads in its place.
"""

import sys

from mypyc.build import mypycify

GROUP = "foretoken.compiled"  # the library is foretoken/compiled__mypyc


def main() -> None:
    """Nothing but these modules counts, so that the result does not depend on what is installed besides: a build in an
    environment of its own has no NumPy."""
    folder, *modules = sys.argv[1:]
    settings = ["--config-file=", f"--cache-dir={folder}/checked", "--follow-imports=skip"]
    alone = ["--no-site-packages", "--ignore-missing-imports"]
    mypycify([*settings, *alone, *modules], target_dir=folder, group_name=GROUP)


if __name__ == "__main__":
    main()

"""The planner runs in every round: the build translates it to C (CMakeLists.txt), or it takes four times as long."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import simulated

import foretoken

ROOT = Path(__file__).parents[2]
LISTED = re.search(r"set\(compiled_modules\s([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())
MODULES = [name.replace("/", ".") for name in LISTED[1].split()]

# A simulated text, planned by the sources alone, in a process of their own.
SIMULATE = """
import importlib.abc, importlib.util, pathlib, sys

class Sources(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.removeprefix("foretoken.") in MODULES:
            file = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
            return importlib.util.spec_from_file_location(name, file)

PACKAGE, MODULES = pathlib.Path(sys.argv[1]), sys.argv[2].split()
sys.meta_path.insert(0, Sources())
import simulated
from foretoken.horizon import planner
assert planner.__file__.endswith(".py")
print(simulated.one_text())
"""


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_every_round_is_compiled(name):
    assert Path(import_module(f"foretoken.{name}").__file__).suffix in (".so", ".pyd")


def test_the_sources_stay_beside_it():
    folder = Path(foretoken.__file__).parent
    assert all((folder / f"{name.replace('.', '/')}.py").is_file() for name in MODULES)


def test_the_sources_plan_the_same_to_the_last_bit():
    package = ROOT / "src" / "foretoken"
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n{SIMULATE}"
    command = [sys.executable, "-c", code, str(package), " ".join(MODULES)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == simulated.one_text()

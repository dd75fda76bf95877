"""The planner runs in every round: the build translates it to C (CMakeLists.txt), or it takes four times as long."""

from importlib import import_module
from pathlib import Path

import pytest

import foretoken

MODULES = [
    *("drafters.choice", "drafters.line", "horizon.chance", "horizon.cost", "horizon.events", "horizon.habit"),
    *("horizon.planner", "horizon.protocol", "horizon.rate", "horizon.text"),
]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_every_round_is_compiled(name):
    assert Path(import_module(f"foretoken.{name}").__file__).suffix in (".so", ".pyd")


def test_the_sources_stay_beside_it():
    folder = Path(foretoken.__file__).parent
    assert all((folder / f"{name.replace('.', '/')}.py").is_file() for name in MODULES)

"""Rules of the code that a machine can check: arrows between layers, lengths, no probing, paths in documents."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "foretoken"
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 500

# A module may import modules of a lower number, and those of its own package. Equal numbers stand beside each other.
LEVELS = {
    "cli": 9,
    "distill": 8.5,
    "selftest": 8,
    "bench": 8,
    "__init__": 8,  # only hands out what api offers
    "api": 7,
    "places": 0.5,
    "hub": 0,
    "scheduler": 6.7,
    "pairing": 6.5,
    "stream": 6.5,
    "engine": 6,
    "request": 5,
    "speculative": 5,
    "horizon": 4,
    "source": 4.6,
    "gguf": 4.5,
    "weights": 4,
    "drafters": 3,
    "models": 2,
    "sampling": 1.5,
    "cache": 1.5,
    "prefix": 1.7,
    "ops": 1,
    "config": 0,
    "tokenizer": 0,
    "chat": 0,
    "calls": -0.5,
    "sandbox": -0.5,
    "tools": 0,
    "turn": 0.5,
    "stats": 0,
    "_core": 0,
    "files": -0.5,
    "errors": -1,
}
PYTHON_FILES = sorted(SOURCE.rglob("*.py"))
CPP_FILES = sorted(path for kind in ("*.h", "*.cpp") for path in (ROOT / "csrc").rglob(kind))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def package_of(path: Path) -> str:
    """The layer that a file belongs to: its folder under foretoken, or its own name."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Full names of our modules that a file imports, inside functions and for types as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "foretoken"}


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVELS else "__init__"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_no_arrow_points_up(path):
    own = package_of(path)
    assert own in LEVELS, f"{name_of(path)} belongs to no layer: give it one here and in ARCHITECTURE.md"
    up = [m for m in sorted(imports_of(path)) if layer_of(m) != own and LEVELS[layer_of(m)] >= LEVELS[own]]
    assert not up, f"{name_of(path)} ({own}) imports {', '.join(up)}, which stands above or beside it"


def test_the_round_sees_protocols_only():
    assert {layer_of(m) for m in imports_of(SOURCE / "speculative.py")} <= {"drafters", "horizon", "errors"}
    assert all(".protocol" in m for m in imports_of(SOURCE / "speculative.py") if layer_of(m) == "drafters")


def is_probe(call: ast.Call) -> bool:
    """A question for an attribute of an object; what the system's own module offers may be asked."""
    if not isinstance(call.func, ast.Name) or call.func.id not in ("getattr", "hasattr"):
        return False
    return not (isinstance(call.args[0], ast.Name) and call.args[0].id in ("os", "sys"))


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_nothing_is_probed(path):
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    probes = [node.lineno for node in nodes if isinstance(node, ast.Call) and is_probe(node)]
    assert not probes, (
        f"{name_of(path)} probes with getattr or hasattr in lines {probes}: give both sides one interface"
    )


@pytest.mark.parametrize("path", PYTHON_FILES + CPP_FILES, ids=name_of)
def test_files_are_short(path):
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_FILE_LINES, f"{name_of(path)} has {num_lines} lines: split it"


def python_functions(text: str) -> dict[str, int]:
    """{name at line: lines}"""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    return {f"{f.name} at line {f.lineno}": f.end_lineno - f.lineno + 1 for f in functions}


CPP_NOISE = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'|^[ \t]*#[^\n]*(?:\\\n[^\n]*)*", re.S | re.M
)
CPP_FUNCTION = re.compile(r"\b(?P<name>~?\w+|operator\S+)\s*\([^;{}]*\)[\w\s:&<>,*()-]*$", re.S)
CPP_CONTROL = ("if", "for", "while", "switch", "catch", "do", "else", "return")


def cpp_functions(text: str) -> dict[str, int]:
    """{name at line: lines} of function bodies, by braces; lambdas count for the function around them."""
    text = CPP_NOISE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    found, depth, inside, start, head = {}, 0, None, 0, ""
    for at, char in enumerate(text):
        if char == "{":
            match = CPP_FUNCTION.search(head)
            if inside is None and match and match["name"] not in CPP_CONTROL:
                inside, start, name = depth, text.count("\n", 0, at) + 1, match["name"]
            depth += 1
        elif char == "}":
            depth -= 1
            if inside == depth:
                found[f"{name} at line {start}"] = text.count("\n", 0, at) + 2 - start
                inside = None
        head = "" if char in "{};" else head + char
    return found


def test_lengths_of_cpp_functions_are_seen():
    text = 'struct A {\n  int f(int x) const {\n    if (x) {\n    }\n  }\n};\nvoid g(const char* s = "{") {  // {\n}\n'
    assert cpp_functions(text) == {"f at line 2": 4, "g at line 7": 2}


@pytest.mark.parametrize("path", PYTHON_FILES + CPP_FILES, ids=name_of)
def test_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    lengths = python_functions(text) if path.suffix == ".py" else cpp_functions(text)
    long = {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES}
    assert not long, f"{name_of(path)}: {long}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_paths_named_in_documents_exist(path):
    named = re.findall(
        r"`((?:src|csrc|tests|docs|tools|bench|\.ci)/[\w./-]*|[A-Z]\w+\.md|\w+\.toml|Makefile)`", path.read_text()
    )
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"{name_of(path)} names {missing}"


def test_every_environment_variable_is_documented():
    code = "".join(p.read_text(encoding="utf-8") for p in PYTHON_FILES + CPP_FILES)
    used = set(re.findall(r"[\"'](FORETOKEN_[A-Z_]+)[\"']", code))
    documented = set(re.findall(r"`(FORETOKEN_[A-Z_]+)`", (ROOT / "docs" / "env_vars.md").read_text(encoding="utf-8")))
    assert used <= documented, f"docs/env_vars.md lacks {sorted(used - documented)}"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_no_probe_raises(path):
    """Path.exists, is_file and is_dir raise where a folder may not be read (Python 3.11); those of os.path say no."""
    probes = {"exists", "is_file", "is_dir"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in probes
        assert not is_call or ast.unparse(node.func.value) == "os.path", f"{name_of(path)}:{node.lineno}"

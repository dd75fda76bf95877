"""Read the licence-clear sources into plain records.

Every source is a Debian package (or Python itself); paths are Debian's and can be overridden.
A record carries a key; `is_heldout(key)` decides the split from a hash of it, so the split does
not depend on order or on a random generator.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import re
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")
PYTHON_DOCS = Path("/usr/share/doc/python3.11-doc/html/_sources")
STDLIB = Path("/usr/lib/python3.11")
JARGON = Path("/usr/share/doc/jargon-text/jargon.txt.gz")
POS = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}


def is_heldout(key: str, share: int = 40) -> bool:
    """True for one key in `share`, decided by SHA-256 (seed in the prefix)."""
    return int.from_bytes(hashlib.sha256(f"foretoken-1:{key}".encode()).digest()[:4], "little") % share == 0


@dataclass(frozen=True)
class Gloss:
    """One WordNet word in its most frequent sense."""

    word: str
    pos: str
    meaning: str
    examples: tuple[str, ...]
    synonyms: tuple[str, ...]
    kind: str  # the hypernym's first word, "" if none
    is_common: bool  # WordNet counted it in its tagged texts


def load_wordnet(root: Path = WORDNET) -> list[Gloss]:
    """First (most frequent) sense of every single-word lemma."""
    glosses: list[Gloss] = []
    for name, pos in POS.items():
        synsets: dict[str, tuple[list[str], str, str]] = {}
        for line in (root / f"data.{name}").read_text().splitlines():
            if line.startswith(" "):
                continue
            head, _, gloss = line.partition(" | ")
            parts = head.split()
            count = int(parts[3], 16)
            words = [re.sub(r"\(.*\)", "", parts[4 + 2 * i]).replace("_", " ") for i in range(count)]
            pointers = parts[5 + 2 * count :]
            up = next((pointers[i + 1] for i in range(len(pointers) - 3) if pointers[i] in ("@", "@i")), "")
            synsets[parts[0]] = (words, gloss.strip(), up)
        for line in (root / f"index.{name}").read_text().splitlines():
            if line.startswith(" "):
                continue
            parts = line.split()
            word, num_pointers = parts[0], int(parts[3])
            if "_" in word or not word.isalpha() or len(word) < 3:
                continue
            tagged = int(parts[5 + num_pointers])
            words, gloss, up = synsets[parts[6 + num_pointers]]
            pieces = [p.strip() for p in gloss.split(";")]
            meaning = "; ".join(p for p in pieces if not p.startswith('"'))
            examples = tuple(re.findall(r'"([^"]{10,90})"', gloss))
            others = tuple(w for w in words if w.lower() != word)[:3]
            kind = synsets[up][0][0] if up in synsets else ""
            glosses.append(Gloss(word, pos, meaning, examples[:2], others, kind, tagged > 0))
    return glosses


def load_docs(root: Path = PYTHON_DOCS) -> list[tuple[str, str]]:
    """(path, reST text) of every page of the Python documentation."""
    return [
        (str(p.relative_to(root)), p.read_text(errors="replace"))
        for p in sorted(root.rglob("*.rst.txt"))
        if "license" not in p.name and "changelog" not in p.name
    ]


@dataclass(frozen=True)
class DocEntry:
    """One `.. function::` (or class, method, data) of the Python documentation."""

    page: str
    role: str
    signature: str
    name: str
    body: tuple[str, ...]  # paragraphs, unwrapped


def load_doc_entries(docs: list[tuple[str, str]]) -> list[DocEntry]:
    """Directives with a prose body, their paragraphs unwrapped to one line each."""
    entries = []
    pattern = re.compile(r"^( *)\.\. (function|class|method|data|attribute|exception|decorator):: +(.+)$")
    for page, text in docs:
        lines = text.split("\n")
        module = Path(page).name.replace(".rst.txt", "")
        for i, line in enumerate(lines):
            match = pattern.match(line)
            if not match:
                continue
            indent = len(match[1]) + 1
            body, j = [], i + 1
            while j < len(lines) and (not lines[j].strip() or len(lines[j]) - len(lines[j].lstrip()) >= indent):
                body.append(lines[j].strip())
                j += 1
            paragraphs = []
            for block in "\n".join(body).split("\n\n"):
                block = " ".join(block.split())
                if block.startswith(("..", ">>>", ":", "*", "-", "+")) or len(block) < 30 or "::" in block:
                    if paragraphs:
                        break
                    continue
                paragraphs.append(plain(block))
            name = match[3].split("(")[0].split("->")[0].strip()
            if "." not in name and "library" in page:
                name = f"{module}.{name}"
            if paragraphs and len(match[3]) < 90:
                entries.append(DocEntry(page, match[2], match[3].strip(), name, tuple(paragraphs[:3])))
    return entries


def plain(text: str) -> str:
    """reST inline markup to Markdown-like text: roles and double back-quotes become `code`."""
    text = re.sub(r":[a-z:]+:`([^`<]*?)\s*(?:<[^>]*>)?`", lambda m: f"`{m[1].lstrip('~!.')}`", text)
    return re.sub(r"``(.+?)``", r"`\1`", text)


@dataclass(frozen=True)
class Function:
    """One function or method of the standard library, dedented."""

    module: str
    name: str
    code: str
    doc: str
    args: tuple[str, ...]


def load_stdlib(root: Path = STDLIB) -> list[tuple[str, str]]:
    """(path, source) of the standard library without tests, tables and IDLE."""
    skip = re.compile(
        r"(^|/)(test|tests|idlelib|encodings|lib2to3|pydoc_data|turtledemo|dist-packages|__pycache__)(/|$)"
    )
    files = []
    for path in sorted(root.rglob("*.py")):
        name = str(path.relative_to(root))
        if skip.search(name) or name.startswith("_sysconfigdata") or path.stat().st_size > 300_000:
            continue
        files.append((name, path.read_text(errors="replace")))
    return files


def load_functions(files: list[tuple[str, str]]) -> list[Function]:
    """Every function of 3 to 24 lines that parses on its own."""
    functions = []
    for module, text in files:
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        lines = text.split("\n")
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or not 2 <= node.end_lineno - node.lineno <= 23:
                continue
            code = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])).rstrip()
            if len(code) > 700 or "\t" in code:
                continue
            args = tuple(a.arg for a in node.args.args if a.arg not in ("self", "cls"))
            functions.append(Function(module, node.name, code, ast.get_docstring(node) or "", args))
    return functions


BOOKS = {"Ge": "Genesis", "Exo": "Exodus", "Lev": "Leviticus", "Num": "Numbers", "Deu": "Deuteronomy"}


def load_bible(text_file: Path | None = None) -> list[tuple[str, list[str]]]:
    """(chapter key, verses) of the King James Bible as Debian's `bible` command prints it."""
    if text_file is not None:
        text = text_file.read_text()
    else:
        text = subprocess.run(
            ["bible", "-f", "gen1:1-rev22:21"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
        ).stdout
    chapters: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = re.match(r"^(\w+?)(\d+):(\d+) (.+)$", line)
        if match:
            chapters.setdefault(f"{match[1]} {match[2]}", []).append(match[4].strip())
    return list(chapters.items())


def load_jargon(path: Path = JARGON) -> list[tuple[str, list[str]]]:
    """(head word, paragraphs) of the Jargon File's entries."""
    text = gzip.decompress(path.read_bytes()).decode(errors="replace")
    entries: list[tuple[str, list[str]]] = []
    for block in re.split(r"\n\s*\n", text):
        block = " ".join(block.split())
        match = re.match(r"^:([^:]{2,40}):(.*)$", block)
        if match:
            entries.append((match[1], []))
        elif block.startswith("Appendix A"):
            break
        elif entries and len(block) > 60:
            entries[-1][1].append(block)
    return [(word, paragraphs) for word, paragraphs in entries if paragraphs]

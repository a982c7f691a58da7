"""No file above 400 lines and no function above 60, unless a comment in it gives the reason.

The reason is a comment that begins with "Long because"; in a function it stands in or just above it, in
a file within the first 20 lines.
"""

import ast
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE_LINES = 400
FUNCTION_LINES = 60
REASON = "Long because"
SUFFIXES = {".cpp", ".hpp", ".py", ".sh", ".sbatch", ".cmake"}
NOT_A_FUNCTION = re.compile(r"\s*(class|struct|enum|union|namespace|extern|template)\b")


def cpp_blocks(lines):
    """(first, last) line of every brace block at the indentation of a function or a member.

    Relies on clang-format: a block ends with a lone brace as deep as the line on which it starts.
    """
    for indent in ("", "  "):
        start = None
        for number, line in enumerate(lines):
            deep = line.startswith(indent) and line[len(indent) : len(indent) + 1].strip()
            if not deep or line.lstrip().startswith(("#", "//")):
                continue
            if line == indent + "}" and start is not None:
                if not NOT_A_FUNCTION.match(lines[start]):
                    yield start, number
                start = None
            elif not line.lstrip().startswith(("}", "public:", "private:", ":")):
                start = number


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno - 1, node.end_lineno - 1


def problems_of(name, text):
    lines = text.splitlines()
    found = []
    if len(lines) > FILE_LINES and not any(REASON in line for line in lines[:20]):
        found.append(f"{name}: {len(lines)} lines")
    functions = []
    if name.endswith((".cpp", ".hpp")):
        functions = cpp_blocks(lines)
    elif name.endswith(".py"):
        functions = python_functions(text)
    for first, last in functions:
        length = last - first + 1
        reasons = lines[max(first - 5, 0) : last + 1]
        if length > FUNCTION_LINES and not any(REASON in line for line in reasons):
            found.append(f"{name}:{first + 1}: a function of {length} lines")
    return found


def sources(root):
    """Files of ours: what git tracks or would add; everything in a tree without git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    names = listed.stdout.splitlines() if listed.returncode == 0 else None
    if names is None:
        skipped = ("build", ".")
        names = [
            str(path.relative_to(root))
            for path in root.rglob("*")
            if not any(part.startswith(skipped) for part in path.relative_to(root).parts)
        ]
    paths = [root / name for name in sorted(set(names))]
    return [
        path
        for path in paths
        if path.is_file() and (path.suffix in SUFFIXES or path.name == "CMakeLists.txt")
    ]


def test_this_repository_keeps_the_sizes():
    paths = sources(ROOT)
    assert len(paths) > 20
    found = []
    for path in paths:
        found += problems_of(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    assert found == []


def cpp_function(lines, comment=""):
    body = "  work();\n" * (lines - 2)
    return f"int f(int a,\n      int b) {{{comment}\n{body[: -len('  work();') - 1]}}}\n"


def test_long_files_and_functions_are_found():
    assert problems_of("a.cpp", "int a;\n" * 400) == []
    assert problems_of("a.cpp", "int a;\n" * 401) == ["a.cpp: 401 lines"]
    assert problems_of("a.cpp", "// Long because of a table.\n" + "int a;\n" * 401) == []
    assert problems_of("a.cpp", "int a;\n" + cpp_function(60)) == []
    assert problems_of("a.cpp", "int a;\n" + cpp_function(61)) == [
        "a.cpp:2: a function of 61 lines"
    ]
    assert problems_of("a.cpp", cpp_function(61, "  // Long because of cases")) == []
    member = "".join("  " + line + "\n" for line in cpp_function(70).splitlines())
    found = problems_of("a.hpp", f"class A {{\n public:\n{member}}};\n")
    assert found == ["a.hpp:3: a function of 70 lines"]
    assert problems_of("a.hpp", "struct A {\n" + "  int a;\n" * 80 + "};\n") == []
    python = "def f():\n" + "    work()\n" * 60
    assert problems_of("a.py", python) == ["a.py:1: a function of 61 lines"]
    assert problems_of("a.py", python.replace("work()", "work()  # Long because", 1)) == []

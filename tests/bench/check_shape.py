"""Runs a benchmark tiny and compares what it prints, numbers blanked, with its shape.jsonl.

    python tests/bench/check_shape.py NAME BUILD [--write]

A line that the shape marks "optional" need not be there: a peer that is not installed.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile


def blanked(line):
    """The line with 0 for every number, also those inside texts."""
    return {key: re.sub(r"\d+", "0", value) if isinstance(value, str)
            else value if value is None else 0 for key, value in json.loads(line).items()}


def shape_of(name, build):
    here = pathlib.Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "lines.jsonl"
        subprocess.run([sys.executable, here / name / "bench.py", "--build", build, "--quick",
                        "--json", file], check=True, stdout=subprocess.DEVNULL)
        return [blanked(line) for line in file.read_text().splitlines()]


def main():
    name, build, *write = sys.argv[1:]
    path = pathlib.Path(__file__).parent / name / "shape.jsonl"
    found = shape_of(name, build)
    if write:
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in found))
        return
    expected = [json.loads(line) for line in path.read_text().splitlines()]
    required = [line for line in expected if not line.pop("optional", False)]
    for line in found:
        if line not in expected:
            sys.exit(f"error: {name} prints what its shape.jsonl does not have: {line}")
    for line in required:
        if line not in found:
            sys.exit(f"error: {name} does not print {line}")


if __name__ == "__main__":
    main()

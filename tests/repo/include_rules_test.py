"""Who may include whom: folders of this repository, and the libraries that each of them may see."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Folder -> folders that it may include besides itself.
FOLDERS = {
    "dist": set(),
    "io": {"dist"},
    "solver": {"dist"},
    "shard": {"dist", "io"},
    "jobs": {"dist", "io", "solver", "shard"},
}

# Library -> (pattern of its headers, folders that may see it).
LIBRARIES = {
    "MPI": (r"mpi\.h$", {"dist", "io", "solver", "shard", "jobs"}),
    "fmt": (r"fmt/", {"dist", "io", "solver", "shard", "jobs"}),
    "NCCL and the CUDA runtime": (r"(nccl|cuda_runtime_api)\.h$", {"dist"}),
    "spdlog": (r"spdlog/", {"dist"}),
    "HDF5": (r"(hdf5|hdf5_hl|H5\w+)\.h$", {"io"}),
    "hashes": (r"(xxhash\.h|openssl/)", {"io"}),
    "JSON": (r"nlohmann/", {"io", "shard", "jobs"}),
    "LibTorch": (r"(torch|ATen|c10)/", {"shard", "jobs"}),
    "YAML and command line": (r"(yaml-cpp|CLI)/", {"jobs"}),
    "BLAS, ScaLAPACK and ELPA": (
        r"(elpa/|(cblas|lapacke?|scalapack|blacs|mkl\w*|openblas\w*)\b)",
        {"solver"},
    ),
    "POSIX": (
        r"(sys|linux)/|(dirent|dlfcn|fcntl|malloc|poll|pwd|sched|signal|spawn|unistd)\.h$",
        {"dist", "io", "solver", "shard", "jobs"},
    ),
}
# Libraries that only .cpp files may include.
HIDDEN = {"spdlog"}
# Symbols that are declared by hand where a library has no header, and their folder.
SYMBOLS = {r"\bCblacs_\w+|\bp[ds](syev|potrf|sygst|gemm|syrk|trsm)\w*_\b": "solver"}
# A header that uses a name includes what declares it; precompiled headers would hide the lack.
NEEDS = {r"\btorch::": r"torch/"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
COMMENT = re.compile(r"//.*?$|/\*.*?\*/", re.MULTILINE | re.DOTALL)


def library_of(header):
    for name, (pattern, _) in LIBRARIES.items():
        if re.match(pattern, header):
            return name
    return None


def problem_of_include(root, folder, is_header, quote, target):
    """What is wrong with one include line, or None."""
    if quote == '"':
        other = target.split("/")[0]
        if other not in FOLDERS or not (root / target).is_file():
            return "own headers are included as <folder>/<path>, from the root"
        if other != folder and other not in FOLDERS[folder]:
            return f"{folder} must not include {other}"
        return None
    if "/" not in target and "." not in target:
        return None  # the standard library
    library = library_of(target)
    if library is None:
        return "a library that tests/repo/include_rules_test.py does not know"
    if folder not in LIBRARIES[library][1]:
        return f"{folder} must not see {library}"
    if is_header and library in HIDDEN:
        return f"{library} stays inside .cpp files"
    return None


def problem_of_pair(root, path, text, includes):
    """A header compiles alone if its source file includes it before anything else, and twice by its
    first line."""
    header = path.with_suffix(".hpp")
    if path.suffix == ".hpp":
        guarded = COMMENT.sub("", text).lstrip().startswith("#pragma once")
        return None if guarded else "does not begin with #pragma once"
    own = str(header.relative_to(root))
    if header.is_file() and (not includes or includes[0][1] != own):
        return f"{own} is not included first"
    return None


def problems(root):
    found = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.[ch]pp")):
            name = path.relative_to(root)
            text = path.read_text(encoding="utf-8")
            includes = INCLUDE.findall(text)
            problem = problem_of_pair(root, path, text, includes)
            if problem:
                found.append(f"{name}: {problem}")
            for quote, target in includes:
                problem = problem_of_include(root, folder, path.suffix == ".hpp", quote, target)
                if problem:
                    found.append(f"{name}: includes {target}: {problem}")
            code = COMMENT.sub("", text)
            for pattern, owner in SYMBOLS.items():
                match = re.search(pattern, code)
                if match and folder != owner:
                    found.append(f"{name}: uses {match[0]}, which belongs to {owner}")
            for pattern, header in NEEDS.items():
                has_header = any(re.match(header, target) for _, target in includes)
                match = re.search(pattern, code)
                if path.suffix == ".hpp" and match and not has_header:
                    found.append(f"{name}: uses {match[0]} names without including {header}")
    return found


def test_this_repository_keeps_the_rules():
    assert problems(ROOT) == []


def test_all_source_folders_are_covered():
    with_sources = {path.relative_to(ROOT).parts[0] for path in ROOT.glob("*/*.hpp")}
    assert with_sources == set(FOLDERS)


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_broken_rules_are_found(tmp_path):
    root = tree(
        tmp_path,
        {
            "dist/a.hpp": "// Text.\n#pragma once\n#include <spdlog/logger.h>\n#include <vector>\n",
            "dist/a.cpp": '#include "io/b.hpp"\n#include "a.hpp"\n',
            "io/b.hpp": "#pragma once\n#include <torch/torch.h>\n#include <hdf5.h>\n",
            "solver/c.cpp": '#include <H5Fpublic.h>\n#include "io/b.hpp"\n#include <ATen/ATen.h>\n',
            "shard/d.hpp": '#pragma once\n#include "solver/e.hpp"\nvoid Cblacs_exit(int);\ntorch::Tensor t;\n',
            "solver/e.hpp": "#include <boost/any.hpp>\n// torch::Tensor in a comment\n",
            "jobs/f.cpp": '#include "solver/e.hpp"\n#include <torch/torch.h>\n#include <unistd.h>\n',
        },
    )
    assert [re.sub(": includes .*?: ", ": ", line) for line in problems(root)] == [
        "dist/a.cpp: dist/a.hpp is not included first",
        "dist/a.cpp: dist must not include io",
        "dist/a.cpp: own headers are included as <folder>/<path>, from the root",
        "dist/a.hpp: spdlog stays inside .cpp files",
        "io/b.hpp: io must not see LibTorch",
        "solver/c.cpp: solver must not see HDF5",
        "solver/c.cpp: solver must not include io",
        "solver/c.cpp: solver must not see LibTorch",
        "solver/e.hpp: does not begin with #pragma once",
        "solver/e.hpp: a library that tests/repo/include_rules_test.py does not know",
        "shard/d.hpp: shard must not include solver",
        "shard/d.hpp: uses Cblacs_exit, which belongs to solver",
        "shard/d.hpp: uses torch:: names without including torch/",
    ]

"""What the benchmarks share: alternating repeats, medians, and one JSON object a line."""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

FIELDS = ("benchmark", "case", "ranks", "quantity", "unit", "ours", "peer", "peer_name", "ratio",
          "limit", "share_of_limit", "repeats")
MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def parse_arguments(description, **defaults):
    """The options of every benchmark; `defaults` names further ones, of the type of their default."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True, help="build directory")
    parser.add_argument("--json", type=pathlib.Path, help="file to which the lines are appended")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it works, not how fast")
    parser.add_argument("--repeats", type=int, default=3)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats = 1
    return arguments


def mpirun(ranks, *command, threads=1):
    """Run a program on some ranks with that many threads each; returns what it prints. A failure
    ends the benchmark with the program's own message."""
    environment = os.environ | MPI | {"OMP_NUM_THREADS": str(threads), "MRP_THREADS": str(threads)}
    done = subprocess.run(["mpirun", "--oversubscribe", "-n", str(ranks), *map(str, command)],
                          env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout


def drop_caches():
    """Write what is dirty and, where permitted, forget cached files. Returns whether it could."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def alternate(runs, repeats, warm_up=True):
    """Call the functions of {name: function} in turn, `repeats` times after a warm-up that does not
    count. Returns {name: list of what they returned}. Each call is a line on standard error."""
    results = {name: [] for name in runs}
    for repeat in range(-1 if warm_up else 0, repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            value = run()
            turn = f"{repeat + 1} of {repeats}" if repeat >= 0 else "warm-up"
            print(f"{name}: {turn}, {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
            if repeat >= 0:
                results[name].append(value)
    return results


def line(benchmark, case, ranks, quantity, unit, ours, repeats, peer=None, peer_name=None,
         limit=None, more_is_better=True):
    """One result: medians `ours` and `peer`, the hardware's `limit` in the same unit."""
    def better(one, other):
        if not one or not other:
            return None
        return round(one / other if more_is_better else other / one, 4)
    return dict(zip(FIELDS, (benchmark, case, ranks, quantity, unit, ours, peer, peer_name,
                             better(ours, peer), limit, better(ours, limit), repeats)))


def median(values):
    """To four significant digits."""
    return float(f"{statistics.median(values):.4g}")


def report(lines, path):
    """Print the lines, and append them to the file `path` if there is one."""
    for entry in lines:
        text = json.dumps(entry)
        print(text, flush=True)
        if path:
            with path.open("a") as file:
                file.write(text + "\n")

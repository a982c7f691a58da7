"""From hidden states to subspaces: one wide site beside its Gram product, and many sites spread over ranks.

    python tests/bench/solve/bench.py --build DIR [--quick] [--json FILE] [--folder DIR]
        [--cases moments,sample,spread] [--layers 22] [--peers numpy,scipy]

moments: the covariance of a site of width 8192, its lower triangle, with reading. The limit is the peak
of the same ranks' products in fp64, which is what we multiply in (solver/moments.cpp says why).
sample: a site of width 28672 with fewer rows than that, with a fixed and an automatic dimension. The
limit is the time of the Gram product alone, its lower triangle at the peak of the same ranks'
products just after; of memory, three matrices as large as that of Gram and a rank's share of the
states. We may take 1.5 times the one and once the other.
spread: the sites of so many layers of 1.1 B parameters. Ours deals them to the ranks as `solve` does;
peers are all ranks together on one site after the other, and peers.py with as many threads. The angle
is the largest between our kernel of a site and the peer's; above 1e-5 the benchmark fails. Seconds
are those with reading.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy
import scipy.linalg

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import benchmark  # noqa: E402

RANKS = 2
MOMENTS = {"width": 8192, "forget": 4096, "retain": 8192}
WIDE = {"width": 28672, "forget": 4096, "retain": 8192, "k": 32}
LAYERS = {"widths": (2048, 5632), "forget": 1024, "retain": 2048, "k": 16}
MOMENTS_QUICK = {"width": 256, "forget": 128, "retain": 256}
WIDE_QUICK = {"width": 1536, "forget": 256, "retain": 512, "k": 16}
LAYERS_QUICK = {"widths": (128, 512), "forget": 128, "retain": 256, "k": 16}
LARGEST_ANGLE = 1e-5
PEERS = {"numpy": "NumPy: Cholesky, solve, eigh", "scipy": "SciPy: dsygvx"}


class Program:
    """solve_benchmark on a states file, which it writes first."""

    def __init__(self, build, folder, shape, widths):
        self.program, self.folder, self.file = build / "tests/solve_benchmark", folder, folder / "states.h5"
        benchmark.mpirun(RANKS, self.program, "write", self.file, shape["forget"], shape["retain"], *widths)

    def run(self, way, *arguments):
        printed = benchmark.mpirun(RANKS, self.program, way, self.file, *arguments)
        return json.loads(printed.splitlines()[-1])

    def solve(self, way, dimension):
        return self.run(way, dimension, self.folder)

    def peer(self, way, dimension):
        environment = os.environ | {name: str(RANKS) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        script = pathlib.Path(__file__).with_name("peers.py")
        done = subprocess.run([sys.executable, script, way, self.file, str(dimension), self.folder],
                              env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"error: {way} failed:\n{done.stderr}")
        return {"seconds": float(done.stdout)}


def moments(folder, arguments):
    """The line of a covariance."""
    shape = MOMENTS_QUICK if arguments.quick else MOMENTS
    rows, width = shape["forget"] + shape["retain"], shape["width"]
    program = Program(arguments.build, folder, shape, [width])
    runs = [program.run("moments") for _ in range(arguments.repeats)]
    operations = width * (width + 1) * rows / RANKS
    rate = benchmark.median([operations / run["seconds"] / 1e9 for run in runs])
    peak = benchmark.median([run["peak"] / 1e9 for run in runs])
    return [benchmark.line("solve", f"moments, {rows} rows of {width}", RANKS, "products", "GFLOP/s a rank",
                           rate, arguments.repeats, limit=peak)]


def sample(folder, arguments):
    """The lines of the wide site."""
    shape = WIDE_QUICK if arguments.quick else WIDE
    rows, width = shape["forget"] + shape["retain"], shape["width"]
    program = Program(arguments.build, folder, shape, [width])
    most = (3 * rows ** 2 * 8 + rows * width * 2) / RANKS / 2 ** 20
    lines = []
    for dimension in (shape["k"], "automatic"):
        case = f"sample space, {rows} rows of {width}, k {dimension}"
        runs = [program.solve("spread", dimension) for _ in range(arguments.repeats)]
        peak = benchmark.median([run["peak"] for run in runs])
        product = float(f"{rows * (rows + 1) * width / RANKS / peak:.4g}")

        def add(quantity, unit, value, limit=None):
            lines.append(benchmark.line("solve", case, RANKS, quantity, unit, value, arguments.repeats,
                                        limit=limit, more_is_better=False))
        add("time", "s", benchmark.median([run["seconds"] for run in runs]), product)
        add("memory above idle", "MiB", benchmark.median([run["memory"] for run in runs]), round(most))
        add("dimension", "columns", runs[0]["k"])
        lines.append(benchmark.line("solve", case, RANKS, "peak of products", "GFLOP/s a rank",
                                    float(f"{peak / 1e9:.4g}"), arguments.repeats))
    return lines


def angle(folder, way, k):
    """The largest principal angle between our kernel of a site and that of a way."""
    def basis(path):
        return scipy.linalg.orth(numpy.fromfile(path).reshape(-1, k))
    found = []
    for path in folder.glob("spread.*.f64"):
        ours, theirs = basis(path), basis(folder / path.name.replace("spread", way, 1))
        found.append(numpy.linalg.norm(theirs - ours @ (ours.T @ theirs), 2))
    return float(f"{max(found):.1e}")


def spread(folder, arguments):
    """The lines of many sites."""
    shape = LAYERS_QUICK if arguments.quick else LAYERS
    program = Program(arguments.build, folder, shape, shape["widths"] * arguments.layers)
    k = shape["k"]
    peers = {"together": "all ranks, one site after the other"}
    peers |= {way: PEERS[way] for way in arguments.peers.split(",") if way}
    runs = {way: lambda way=way: program.solve(way, k) for way in ("spread", "together")}
    runs |= {way: lambda way=way: program.peer(way, k) for way in peers if way != "together"}
    results = benchmark.alternate(runs, arguments.repeats, warm_up=False)
    seconds = {way: benchmark.median([run["seconds"] for run in runs]) for way, runs in results.items()}
    case = f"{arguments.layers} layers, {shape['forget'] + shape['retain']} rows, k = {k}"
    lines = []
    for way, name in peers.items():
        lines.append(benchmark.line("solve", case, RANKS, "time", "s", seconds["spread"], arguments.repeats,
                                    seconds[way], name, more_is_better=False))
        lines.append(benchmark.line("solve", case, RANKS, "angle", "rad", angle(folder, way, k), 1,
                                    peer_name=name, limit=LARGEST_ANGLE, more_is_better=False))
        lines[-1]["share_of_limit"] = None
    return lines


def main():
    arguments = benchmark.parse_arguments(__doc__, folder=tempfile.gettempdir(), cases="moments,sample,spread",
                                          layers=22, peers="numpy,scipy")
    if arguments.quick:
        arguments.layers = 2
    cases = {"moments": moments, "sample": sample, "spread": spread}
    for case in arguments.cases.split(","):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            lines = cases[case](pathlib.Path(folder), arguments)
        benchmark.report(lines, arguments.json)
        if any(line["quantity"] == "angle" and line["ours"] > LARGEST_ANGLE for line in lines):
            sys.exit("error: subspaces differ from a peer's")


if __name__ == "__main__":
    main()

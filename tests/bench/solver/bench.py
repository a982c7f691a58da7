"""The eigensolver beside the public ones, on the same matrices, in turns.

    python tests/bench/solver/bench.py --build DIR [--quick] [--json FILE] [--n 8192] [--k 64]
        [--ranks 2] [--cases power,planted,cluster,pencil-planted,…] [--peers elpa,dsyevr,…]

Cases are spectra of C v = λ v, with pencil- of C v = λ B v, with many- for n / 8 pairs, not k: as many as
the subspace edit takes of wide sites. All methods get the same cores: ranks with one thread each, or one
process with as many threads. A peer that takes longer than 30 s runs once, without a warm-up; `repeats`
says so. The angle is that between our subspace and the peer's; if it is large, the residuals and the
spectrum (within a cluster there is no right subspace) tell why. Peers that a case or the build does not
have are left out.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

import numpy
import scipy.linalg
import scipy.sparse.linalg
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import benchmark  # noqa: E402

SLOW = 30  # seconds
CASES = "power,planted,cluster,pencil-power,pencil-planted,pencil-cluster,many-power,many-planted"
PEERS = "elpa,pdsyevr,pdsyevd,dsyevr,torch,lobpcg"


def split(case):
    """Kind of problem, and spectrum."""
    spectrum = case.removeprefix("many-").removeprefix("pencil-")
    return "pencil" if "pencil-" in case else "standard", spectrum


class Program:
    """solver_benchmark, ready to be told what to run."""

    def __init__(self, build, ranks, case, n, k, folder):
        kind, spectrum = split(case)
        command = ["mpirun", "--oversubscribe", "-n", str(ranks), build / "tests/solver_benchmark",
                   spectrum, str(n), str(k), kind, folder]
        environment = os.environ | benchmark.MPI | {"OMP_NUM_THREADS": "1", "MRP_THREADS": "1"}
        self.process = subprocess.Popen(command, env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("error: solver_benchmark ended early")
        return line

    def seconds(self, name):
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return float(self.answer())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def load(folder, name, columns):
    return numpy.fromfile(folder / f"{name}.f64").reshape(columns, -1).T


def python_peers(c, b, k, iterations):
    """{name: function that returns values (descending) and vectors}."""
    n = len(c)
    last = (n - k, n - 1)

    def lapack():
        driver = "evr" if b is None else "gvx"
        values, vectors = scipy.linalg.eigh(c, b, subset_by_index=last, driver=driver)
        return values[::-1], vectors[:, ::-1]

    def pytorch():
        values, vectors = torch.linalg.eigh(torch.from_numpy(c))
        return values.numpy()[:-k - 1:-1], vectors.numpy()[:, :-k - 1:-1]

    def lobpcg():
        start = numpy.random.default_rng(0).standard_normal((n, k))
        return scipy.sparse.linalg.lobpcg(c, start, B=b, tol=1e-9, maxiter=iterations)

    peers = {"dsyevr" if b is None else "dsygvx": lapack, "lobpcg": lobpcg}
    return peers if b is not None else peers | {"torch": pytorch}


def saved(run, folder, name):
    """Runs a Python peer; its result goes where the program leaves its own."""
    start = time.perf_counter()
    values, vectors = run()
    seconds = time.perf_counter() - start
    numpy.asarray(values).tofile(folder / f"{name}.values.f64")
    numpy.asarray(vectors).T.tofile(folder / f"{name}.vectors.f64")
    return seconds


def timings(runs, repeats):
    """{name: seconds of each run}, in turns after a first round, which counts for slow ones only."""
    first = {name: run() for name, run in runs.items()}
    fast = {name: run for name, run in runs.items() if first[name] <= SLOW}
    results = benchmark.alternate(fast, repeats, warm_up=False)
    return {name: results.get(name, [first[name]]) for name in runs}


def residual(c, b, values, vectors):
    """max ‖C v − λ B v‖ / (‖C‖ ‖v‖)"""
    image = vectors if b is None else b @ vectors
    rest = numpy.linalg.norm(c @ vectors - image * values, axis=0)
    size = scipy.sparse.linalg.eigsh(c, 1, return_eigenvectors=False)[0]
    return float((rest / numpy.linalg.norm(vectors, axis=0)).max() / abs(size))


def angle(v, w):
    """Sine of the largest principal angle."""
    v, w = scipy.linalg.orth(v), scipy.linalg.orth(w)
    return float(numpy.linalg.norm(w - v @ (v.T @ w), 2))


def compare(case, arguments, folder):
    """The lines of one case."""
    n, many = arguments.n, case.startswith("many-")
    k = n // 8 if many else arguments.k
    program = Program(arguments.build, arguments.ranks, case, n, k, folder)
    c = load(folder, "c", n)
    b = load(folder, "b", n) if split(case)[0] == "pencil" else None
    wanted = arguments.peers.replace("dsyevr", "dsyevr,dsygvx").split(",")
    if many:
        wanted = [name for name in wanted if name != "lobpcg"]  # made for few
    runs = {name: lambda name=name: program.seconds(name)
            for name in ("ours", "pdsyevr", "pdsyevd", *elpa(arguments.build)) if name in ("ours", *wanted)}
    runs |= {name: lambda name=name, run=run: saved(run, folder, name)
             for name, run in python_peers(c, b, k, 20 if arguments.quick else 500).items() if name in wanted}
    seconds = timings(runs, arguments.repeats)
    program.close()
    results = {name: (load(folder, f"{name}.values", 1)[:, 0], load(folder, f"{name}.vectors", k))
               for name in runs}
    title = f"{case}, n = {n}, k = {k}"
    lines = []

    def add(quantity, unit, ours, peer, name, repeats):
        lines.append(benchmark.line("solver", title, arguments.ranks, quantity, unit, ours, repeats,
                                    peer, name, more_is_better=False))
        if quantity != "time":
            lines[-1]["ratio"] = None

    residuals = {name: float(f"{residual(c, b, *pairs):.1e}") for name, pairs in results.items()}
    for name in runs.keys() - {"ours"}:
        repeats = min(len(seconds["ours"]), len(seconds[name]))
        add("time", "s", *(benchmark.median(seconds[one]) for one in ("ours", name)), name, repeats)
        add("residual", "of ‖C‖", residuals["ours"], residuals[name], name, 1)
        add("angle", "rad", float(f"{angle(results['ours'][1], results[name][1]):.1e}"), None, name, 1)
    return sorted(lines, key=lambda line: (line["quantity"], line["peer_name"]))


def elpa(build):
    """Whether the build found ELPA."""
    cache = (build / "CMakeCache.txt").read_text()
    return ("elpa",) if "elpa_FOUND:INTERNAL=1" in cache else ()


def main():
    arguments = benchmark.parse_arguments(__doc__, n=8192, k=64, ranks=2, cases=CASES, peers=PEERS)
    if arguments.quick:
        arguments.n, arguments.k, arguments.cases = 1600, 8, "planted,pencil-planted,many-power"
    torch.set_num_threads(arguments.ranks)
    warnings.simplefilter("ignore")  # lobpcg's, that it did not converge: the lines say how far it came
    for case in arguments.cases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            benchmark.report(compare(case, arguments, pathlib.Path(folder)), arguments.json)


if __name__ == "__main__":
    main()

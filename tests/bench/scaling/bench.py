"""What stages cost against the formulas of `mrp plan`, one factor changed at a time.

    python tests/bench/scaling/bench.py --build DIR [--quick] [--json FILE] [--folder DIR]

Factors: tokens, width, layers, directions k, ranks. `peer` is the formula: the bytes that a rank
hands to collectives, and seconds as overhead + operations / speed, both fitted to all cases of a
stage but those with more ranks than cores; `limit` of the speed is that of matrix products alone.
Speeds are of one rank with one thread.
"""
import json
import pathlib
import sys
import tempfile

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import benchmark  # noqa: E402
import random_job  # noqa: E402

CORES = 2
STAGES = ("capture", "solve", "merge", "evaluate")
# hidden, layers, intermediate, heads, kv heads, vocabulary; texts; k; ranks
BASE = {"shape": (512, 4, 1536, 8, 4, 4096), "texts": 64, "k": 16, "ranks": 1}
CASES = {"base": {}, "tokens × 2": {"texts": 128}, "tokens × 4": {"texts": 256},
         "width × 2": {"shape": (1024, 4, 3072, 16, 8, 4096)},
         "layers × 2": {"shape": (512, 8, 1536, 8, 4, 4096)}, "k × 4": {"k": 64},
         "2 ranks": {"ranks": 2}, "4 ranks": {"ranks": 4}}
TINY = {"shape": (64, 2, 128, 4, 4, 256), "texts": 8, "k": 2}


def settings(case):
    """The job file of a case; all stages in one type on any processor."""
    return (f"preset: fast\nsubspace: {{dimension: {case['k']}}}\ncompute: fp32\n"
            f"parallel: {{tensor: {case['ranks']}}}\n")


def run(folder, build, case, repeats):
    """What plan says and what the manifest says, with the median of the seconds of each stage."""
    shape = ",".join(map(str, case["shape"]))
    job = random_job.Job(folder, build, shape, case["texts"], settings(case))
    plan = json.loads(benchmark.mpirun(case["ranks"], job.program, "plan", job.file, "--json"))
    seconds = {stage: [] for stage in STAGES}
    for _ in range(repeats):
        benchmark.mpirun(case["ranks"], job.program, "run", job.file, "--force")
        stages = json.loads((job.work / "manifest.json").read_text())["stages"]
        for stage in STAGES:
            seconds[stage].append(stages[stage]["seconds"])
    return plan, stages, {stage: benchmark.median(values) for stage, values in seconds.items()}


def fit(work, seconds):
    """Overhead in s and speed in 1/s with seconds ≈ overhead + work / speed, neither negative."""
    work, seconds = numpy.array(work), numpy.array(seconds)
    slope, overhead = numpy.polyfit(work, seconds, 1)
    if overhead < 0:
        overhead, slope = 0, (work @ seconds) / (work @ work)
    return overhead, 1 / slope


def main():
    arguments = benchmark.parse_arguments(__doc__, folder=tempfile.gettempdir())
    cases = {name: BASE | changes for name, changes in CASES.items()}
    if arguments.quick:
        cases = {"base": BASE | TINY, "2 ranks": BASE | TINY | {"ranks": 2}}
    found = {}
    for name, case in cases.items():
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found[name] = run(pathlib.Path(folder), arguments.build, case, arguments.repeats)
    lines = []
    for stage in STAGES:
        def add(name, ranks, quantity, unit, ours, **more):
            lines.append(benchmark.line("scaling", f"{stage}, {name}", ranks, quantity, unit, ours,
                                        arguments.repeats, **more))
        fitted = [name for name, case in cases.items() if case["ranks"] <= CORES]
        work = {name: found[name][0]["stages"][stage]["operations"] / case["ranks"]
                for name, case in cases.items()}
        overhead, speed = fit([work[name] for name in fitted], [found[name][2][stage] for name in fitted])
        kind = "wide" if stage in ("solve", "merge") else "products"
        add("all", 1, "speed", "FLOP/s", float(f"{speed:.3g}"), limit=found["base"][0]["speed"][kind])
        add("all", 1, "overhead", "s", float(f"{overhead:.3g}"), more_is_better=False)
        for name, case in cases.items():
            plan, stages, seconds = found[name]
            if name in fitted:
                add(name, case["ranks"], "time", "s", seconds[stage], more_is_better=False,
                    peer=float(f"{overhead + work[name] / speed:.3g}"), peer_name="formula")
            if case["ranks"] > 1 and plan["stages"][stage]["sent"]:
                add(name, case["ranks"], "sent by a rank", "bytes", stages[stage]["sent"],
                    more_is_better=False, peer=plan["stages"][stage]["sent"], peer_name="formula")
    benchmark.report(lines, arguments.json)


if __name__ == "__main__":
    main()

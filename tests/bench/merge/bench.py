"""Folding 32 directions into every o_proj and down_proj beside a copy and a rewrite in Python.

    python tests/bench/merge/bench.py --build DIR [--quick] [--json FILE] [--folder DIR]
        [--shapes 1.1b,70b-4-layers] [--mergekit PYTHON]

PYTHON has the package mergekit, which then makes its cheapest pass: a merge of one model as it is.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import benchmark  # noqa: E402

HERE = pathlib.Path(__file__).parent
RANKS = 2
MERGEKIT = "models: [{{model: {}}}]\nmerge_method: passthrough\ndtype: bfloat16\n"


def timed(*command):
    """Seconds until the command ended and everything was synced."""
    start = time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": str(RANKS)})
    os.sync()
    if done.returncode != 0:
        sys.exit(f"error: {command[0]} failed:\n{done.stderr}")
    return {"seconds": time.perf_counter() - start}


def ways(source, output, arguments):
    """{name: function that makes `output` of `source` and says how long it took}."""
    def merge():
        program = arguments.build / "tests" / "merge_benchmark"
        return json.loads(benchmark.mpirun(RANKS, program, source, output))
    runs = {"merge": merge, "cp -r": lambda: timed("cp", "-r", source, output),
            "Python rewrite": lambda: timed(sys.executable, HERE / "rewrite.py", source, output)}
    if arguments.mergekit:
        recipe = output.with_suffix(".yaml")
        recipe.write_text(MERGEKIT.format(source))
        program = pathlib.Path(arguments.mergekit).with_name("mergekit-yaml")
        runs["mergekit passthrough"] = lambda: timed(program, recipe, output)
    return runs


def cold(run, output):
    """The same run without an older output and without cached files."""
    def call():
        shutil.rmtree(output, ignore_errors=True)
        benchmark.drop_caches()
        return run()
    return call


def compare(shape, folder, arguments):
    source, output = folder / shape, folder / "output"
    subprocess.run([sys.executable, HERE.parent / "random_checkpoint.py", "--shape", shape,
                    "--output", source], check=True, stdout=subprocess.DEVNULL)
    runs = {name: cold(run, output) for name, run in ways(source, output, arguments).items()}
    results = benchmark.alternate(runs, arguments.repeats, warm_up=False)
    shutil.rmtree(output)
    shutil.rmtree(source)
    ours = results.pop("merge")
    def middle(values):
        return benchmark.median([value["seconds"] for value in values])
    def entry(quantity, unit, value, **more):
        return benchmark.line("merge", shape, RANKS, quantity, unit, value, arguments.repeats,
                              more_is_better=False, **more)
    seconds, copy = middle(ours), middle(results["cp -r"])
    lines = [entry("time", "s", seconds, peer=middle(runs), peer_name=name, limit=copy)
             for name, runs in results.items()]
    for scope in ours[0]["scopes"]:
        value = benchmark.median([run["scopes"][scope] for run in ours])
        lines.append(entry(f"time of {scope}", "s", value))
    memory = benchmark.median([run["memory"] for run in ours])
    return lines + [entry("memory above idle", "MiB", memory, limit=600.0)]


def main():
    arguments = benchmark.parse_arguments(__doc__, shapes="1.1b", mergekit="",
                                          folder=tempfile.gettempdir())
    if arguments.quick:
        arguments.shapes = "tiny"
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for shape in arguments.shapes.split(","):
            benchmark.report(compare(shape, pathlib.Path(folder), arguments), arguments.json)


if __name__ == "__main__":
    main()

"""Capturing hidden states beside transformers and beside the matrix products alone.

    python tests/bench/capture/bench.py --build DIR [--quick] [--json FILE] [--folder DIR]
        [--texts 512] [--shape 1.1b]

Sites are the inputs of o_proj and down_proj of all layers at the positions that predict the answer.
Tokens count without padding. The time of all is that of forward passes and of writing, without that
of starting and of loading weights, which is a line of its own for us; ours also has reading tokens.h5
and laying out states.h5. Peers (peers.py) have as many threads as we in all and write to the page
cache, we past it: `padded`, what the published method does, keeps the outputs of layers; `hooks`, the
fastest that we could write, keeps what we keep, and the states are compared. The limit is a model
that consists of the layers' matrix products, by oneDNN on batches of 1024 tokens.
"""
import pathlib
import sys
import tempfile

import h5py
import numpy
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import benchmark  # noqa: E402
import random_job  # noqa: E402

SCRIPT = pathlib.Path(__file__).with_name("peers.py")
PEERS = {"padded": "transformers, padded", "hooks": "transformers, hooks"}
COMPARED = 500  # rows of a set


def capture(job, layout):
    """Seconds of a run, by what they went to."""
    record = job.run("capture", layout)
    write = sum(seconds for name, seconds in record["timers"].items() if name.endswith("write"))
    load = record["timers"]["load"]
    return {"seconds": record["seconds"] - load, "load": load, "write": write}


def difference(states, folder):
    """The largest difference of a site's states in a set from those of `hooks`, of their norm."""
    def relative(ours, theirs):
        theirs = theirs[-COMPARED:].float().numpy()
        return numpy.linalg.norm(ours[-COMPARED:] - theirs) / numpy.linalg.norm(theirs)
    found = []
    with h5py.File(states) as file:
        for name in file:
            sites = load_file(folder / f"{name}.safetensors")
            if (file[name]["positions"][:] != sites.pop("positions").numpy()).any():
                sys.exit(f"error: the rows of {name} are not those of the peer")
            found += [relative(file[name][site]["hidden_states"], sites[site]) for site in sites]
    return float(f"{max(found):.1e}")


def measure(job, folder, repeats):
    """{name: results of each repeat}, the limit's in between, and the difference of states by layout."""
    differences = {}

    def ours(layout):
        result = capture(job, layout)
        differences[layout] = difference(job.work / "states.h5", folder / "hooks")
        return result

    def theirs(way):
        (folder / way).mkdir(exist_ok=True)
        return random_job.peer(SCRIPT, way, job.model, job.tokens, folder / way)
    runs = {way: lambda way=way: theirs(way) for way in (*PEERS, "peak")}
    runs |= {layout: lambda layout=layout: ours(layout) for layout in random_job.LAYOUTS}
    return benchmark.alternate(runs, repeats, warm_up=False), differences


def compare(folder, arguments):
    """The lines of all layouts."""
    job = random_job.Job(folder, arguments.build, arguments.shape, arguments.texts, "preset: fast\n")
    results, differences = measure(job, folder, arguments.repeats)
    limit = benchmark.median([run["speed"] for run in results.pop("peak")])
    speeds = {name: benchmark.median([job.count / run["seconds"] for run in runs])
              for name, runs in results.items()}
    lines = []
    for layout, (ranks, threads, _) in random_job.LAYOUTS.items():
        def add(quantity, unit, ours, **more):
            lines.append(benchmark.line("capture", f"{arguments.shape}, {layout}", ranks, quantity,
                                        unit, ours, arguments.repeats, **more))
        peers = PEERS | ({"1 rank": "1 rank, 2 threads"} if ranks > 1 else {})
        for name, title in peers.items():
            add("throughput", "tokens/s", speeds[layout], peer=speeds[name], peer_name=title, limit=limit)
        for part in ("load", "write"):
            seconds = benchmark.median([run[part] for run in results[layout]])
            add(f"time of {part}", "s", seconds, more_is_better=False)
        add("difference of states", "of their norm", differences[layout], peer_name=PEERS["hooks"],
            more_is_better=False)
    return lines


def main():
    arguments = benchmark.parse_arguments(__doc__, texts=512, shape="1.1b", folder=tempfile.gettempdir())
    if arguments.quick:
        arguments.texts, arguments.shape = 16, "tiny"
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        benchmark.report(compare(pathlib.Path(folder), arguments), arguments.json)


if __name__ == "__main__":
    main()

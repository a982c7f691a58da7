"""Writing and reading states.h5 beside plain files, one a rank, that hold the same bytes.

    python tests/bench/state_store/bench.py --build DIR [--quick] [--json FILE] [--folder DIR]
"""
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import benchmark  # noqa: E402

RANKS = 2
PEERS = ("buffered", "direct")


def move(program, action, way, folder, megabytes):
    """One run after the caches were dropped: MB/s and MiB of memory. Every way has its own files,
    which writing makes anew."""
    place = folder / way
    if action == "write":
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    benchmark.drop_caches()
    printed = benchmark.mpirun(RANKS, program, action, way, place, megabytes)
    seconds, memory = map(float, printed.split())
    return megabytes / seconds, memory


def compare(program, action, folder, arguments):
    """The lines of writing or reading."""
    def run(way):
        return lambda: move(program, action, way, folder, arguments.megabytes)
    results = benchmark.alternate({way: run(way) for way in ("store", *PEERS)}, arguments.repeats,
                                  warm_up=not arguments.quick)
    speed = {way: benchmark.median([speed for speed, _ in runs]) for way, runs in results.items()}
    case = f"{arguments.megabytes} MB, {action}"
    memory = benchmark.median([memory for _, memory in results["store"]])
    return [benchmark.line("state_store", case, RANKS, "throughput", "MB/s", speed["store"],
                           arguments.repeats, speed[peer], f"plain files, {peer}",
                           max(speed[name] for name in PEERS)) for peer in PEERS] + [
            benchmark.line("state_store", case, RANKS, "memory above idle", "MiB", memory,
                           arguments.repeats, more_is_better=False)]


def main():
    arguments = benchmark.parse_arguments(__doc__, megabytes=4000, folder=tempfile.gettempdir())
    if arguments.quick:
        arguments.megabytes = 64
    program = arguments.build / "tests" / "state_store_benchmark"
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for action in ("write", "read"):
            benchmark.report(compare(program, action, pathlib.Path(folder), arguments), arguments.json)


if __name__ == "__main__":
    main()

"""Compare ways of forgetting, each beside a model that never saw what is to be forgotten.

For every data set: a base model that has memorised everything, and a control trained without the
forget set; for every seed: half of the retain set is held back, each method runs as a job of mrp
and is then attacked. Prints one table a data set, and writes one JSON object a line:
data, method, seed, quantity, value, base, control, seconds (of the job, without its measuring).
"""
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "jobs" / "py"))

from cli import ArgumentParser, Failure, run  # noqa: E402
from data import REQUESTS, default_names, load  # noqa: E402
from methods import METHODS  # noqa: E402
from models import prepare_models  # noqa: E402
from runs import Comparison, Progress  # noqa: E402
from table import markdown  # noqa: E402

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mrp" / "quality"


def parse_arguments():
    """The command line."""
    parser = ArgumentParser(__doc__, "bash tests/bench/quality.sh --data FOLDER --methods reliable")
    parser.add_argument("--data", metavar="NAME", help="demo (multiple choice), demo_text (the "
                        "same facts as free text), tofu, or a folder with forget.jsonl and "
                        "retain.jsonl (default: all but a folder)")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=[*METHODS],
                        metavar="A,B", help=f"of {', '.join(METHODS)} (default: all)")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")],
                        default=[0, 1], metavar="N,M", help="of the split of the retain set and of "
                        "the jobs (default 0,1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--no-relearn", dest="relearn", action="store_false",
                        help="leave out the attacks, which take most of the time")
    parser.add_argument("--continual", action="store_true",
                        help=f"also give the forget set in {REQUESTS} requests, one after another")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.methods if name not in METHODS]
    if unknown:
        parser.error(f"unknown method {unknown[0]}")
    return arguments


def number_of_runs(names, options):
    """Of mrp, for one data set and seed."""
    methods = [METHODS[name] for name in names]
    return sum(max(1, len(method.learning_rates)) + options.relearn
               + REQUESTS * (options.continual and method.side == "unlearned")
               for method in methods)


class Report:
    """Collects results; writes each as a line at once."""

    def __init__(self, file):
        self.file, self.results, self.notes, self.failed = file, [], [], False

    def add(self, data, method, seed, rows):
        """Quantity → columns."""
        for quantity, row in rows.items():
            result = {"data": data, "method": method, "seed": seed, "quantity": quantity, **row}
            self.results.append(result)
            print(json.dumps(result), file=self.file, flush=True)

    def note(self, data, text):
        """Something to stand below the table."""
        self.notes.append((data, text))
        print(f"quality: {data}: {text}", flush=True)

    def fail(self, data, what, failure):
        """A part that did not work."""
        self.failed = True
        self.note(data, f"{what} failed: {str(failure).removeprefix('error: ')}")

    def table(self, data):
        """The table of one data set."""
        return markdown(data, [result for result in self.results if result["data"] == data],
                        [text for name, text in self.notes if name == data])


def compare_on(data, options, progress, report):
    """All methods and seeds on one data set."""
    folder = data.folder(CACHE)
    prepare_models(data, folder, {"base", "control",
                                  *(METHODS[name].model for name in options.methods)})
    for seed in options.seeds:
        comparison = Comparison(data, folder, seed, options, progress)
        for name in options.methods:
            try:
                for rows in comparison.run(name):
                    report.add(data.name, name, seed, rows)
            except Failure as failure:
                report.fail(data.name, f"{name}, seed {seed}:", failure)
        for name, remark in comparison.remarks.items():
            report.note(data.name, f"{name}, seed {seed}: {remark}")


def main():
    """Compare, then print the tables."""
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and mrp ends with us
    sets = [load(name) for name in ([options.data] if options.data else default_names())]
    progress = Progress(len(sets) * len(options.seeds) * number_of_runs(options.methods, options))
    with open(options.json or os.devnull, "w", encoding="utf-8") as file:
        report = Report(file)
        for data in sets:
            try:
                compare_on(data, options, progress, report)
            except Failure as failure:
                report.fail(data.name, "preparation", failure)
            print("\n" + report.table(data.name), flush=True)
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    run(main)

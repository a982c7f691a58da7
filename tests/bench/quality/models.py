"""The base model and the controls that never saw what is to be forgotten, trained once and kept."""
import fcntl
import os
import subprocess
import sys
import time

from cli import Failure
from data import ROOT, write_lines

TRAIN_MODEL = ROOT / "jobs" / "py" / "train_model.py"


def train_arguments(data, folder, name):
    """The command line of train_model.py for one of the models."""
    files = data.base_files if name == "base" else data.control_files
    arguments = ["--data", *(folder / file for file in files), "--output", folder / name,
                 "--tokenizer-data", *(folder / file for file in data.base_files)]
    if name == "control_questions":
        arguments += ["--questions", folder / data.forget_file]
    return [str(argument) for argument in [*arguments, *data.options]]


def prepare_models(data, folder, names):
    """Train those that are not there yet, side by side. One process at a time works in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, lines in data.files.items():
            write_lines(folder / name, lines)
        names = sorted(names)
        print(f"quality: {data.name}: models {', '.join(names)}", flush=True)
        run_together({name: [sys.executable, TRAIN_MODEL, *train_arguments(data, folder, name)]
                      for name in names}, data.name)


def run_together(commands, where):
    """Run {name: command line} side by side, which share the processors. The first that fails ends
    the others and is raised."""
    threads = max(1, len(os.sched_getaffinity(0)) // len(commands))
    running = {name: subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
               for name, command in commands.items()}
    try:
        while running:
            for name in [name for name, process in running.items() if process.poll() is not None]:
                code = running.pop(name).returncode
                if code:
                    raise Failure(f"model {name} could not be trained", where,
                                  "see the message above", code)
            time.sleep(0.1)
    finally:
        for process in running.values():
            process.terminate()
            process.wait()

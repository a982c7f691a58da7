"""One job of mrp: its folder, its runs, what it left behind."""
import json
import os
import shutil
import subprocess

from cli import Failure
from data import ROOT

PROGRAM = ROOT / os.environ.get("MRP_BUILD_DIR", "build") / "mrp"
RANKS = 2
PATIENCE = 15  # seconds between two signs of life
NOT_UNLEARNING = ("evaluate", "relearn")  # stages whose time is not the method's
RESULTS = {"run": "metrics.json", "relearn": "relearn.json"}


class Trial:
    """A job in a folder of its own, run on two ranks. A result of the same job is reused."""

    def __init__(self, folder, job):
        self.folder, self.output, self.work = folder, folder / "unlearned", folder / "work"
        job = {"output": str(self.output), "work": str(self.work)} | job
        self.file, text = folder / "job.yaml", json.dumps(job, indent=1) + "\n"  # JSON is YAML
        if folder.exists() and (not self.file.exists() or self.file.read_text("utf-8") != text):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text(text, "utf-8")

    def results(self, command, known=None):
        """What `mrp run` or `mrp relearn` measured: metrics.json or relearn.json.

        `known` is a relearn.json of which mrp takes over attacks on the same models.
        """
        file = RESULTS[command]
        if not (self.folder / file).exists():
            if command == "relearn" and not self.output.exists():
                self.execute("run")
            if known and not (self.work / file).exists():
                shutil.copyfile(known, self.work / file)
            self.execute(command)
            for name in (file, "manifest.json"):
                shutil.copyfile(self.work / name, self.folder / name)
        return json.loads((self.folder / file).read_text("utf-8"))

    def execute(self, command):
        """Run mrp; raises its error."""
        log = self.folder / f"{command}.log"
        root_may = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                ["mpirun", "--oversubscribe", "-n", str(RANKS), PROGRAM, command, self.file],
                stdout=file, stderr=subprocess.STDOUT, env=os.environ | root_may)
            try:
                code = wait(process, log)
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if code:
            raise Failure(error_line(log), f"mrp {command}", f"see {log}", code)

    def seconds(self):
        """What the stages took that make the unlearned checkpoint."""
        stages = json.loads((self.folder / "manifest.json").read_text("utf-8"))["stages"]
        return sum(stage["seconds"] for name, stage in stages.items()
                   if name not in NOT_UNLEARNING)

    def discard_checkpoint(self):
        """Remove what is large and what tells the forgotten; the results stay."""
        for folder in (self.output, self.work):
            shutil.rmtree(folder, ignore_errors=True)


def wait(process, log):
    """The exit code; until then, now and then, the last line of the log."""
    shown = ""
    while True:
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            last = ([""] + log.read_text("utf-8", "replace").splitlines())[-1].strip()
            if last != shown:
                print(f"  {last}", flush=True)
            shown = last


def error_line(log):
    """The line of a log that tells what went wrong."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()
             if line.strip()]
    errors = [line for line in lines if line.startswith("mrp: error:")]
    return (errors or lines[-1:] or ["no output"])[0].removeprefix("mrp: error:").strip()

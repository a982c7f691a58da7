"""All jobs on one data set with one seed."""
import hashlib
import time

from cli import Failure
from data import ROOT, write_lines
from methods import METHODS
from scores import (SIDES, compare, compare_requests, forget_distance, of_attacks, of_sets,
                    retain_kept)
from trial import PROGRAM, Trial

ATTACK = {"attackers": ["qv_lora", "all_weights", "benign", "int8", "int4"],
          "learning_rates": [2e-4, 5e-4, 2e-3], "steps": [10, 20, 40]}
KEPT = 0.99  # share of the seen retain accuracy that a setting of a grid must keep


class Comparison:
    """The sets, split by the seed, and the jobs of the methods on them."""

    def __init__(self, data, folder, seed, options, progress):
        """`folder` holds the models; `options` tell whether to attack and to split the request."""
        self.data, self.models, self.seed = data, folder, seed
        self.relearn, self.continual, self.progress = options.relearn, options.continual, progress
        self.remarks = {}  # method → what its row does not say
        self.attacks = None  # the last relearn.json; base and control are the same for all methods
        self.name = f"{data.name}-seed{seed}"
        self.runs = folder / "runs" / program_hash() / self.name
        seen, unseen = data.split(seed)
        self.sets = {name: str(write_lines(folder / "sets" / self.name / f"{name}.jsonl", lines))
                     for name, lines in {"forget": data.forget, "retain": seen,
                                         "retain_unseen": unseen, **data.extra}.items()}

    def trial(self, name, method, learning_rate=None, data=None, **keys):
        """A job, not yet run."""
        measured = {name: path for name, path in self.sets.items()
                    if name not in ("forget", "retain")}
        origin = {} if "continue" in keys else {"model": str(self.models / method.model)}
        job = {**origin, "seed": self.seed,
               "data": data or {"forget": self.sets["forget"], "retain": self.sets["retain"],
                                "evaluate": measured},
               "evaluate": {"control": str(self.models / "control")}, **method.keys, **keys}
        if self.relearn:
            job["relearn"] = ATTACK | {"seeds": [self.seed]}
        if learning_rate is not None:
            job["refine"] = method.keys.get("refine", {}) | {"learning_rate": learning_rate}
        return Trial(self.runs / name, job)

    def run(self, name):
        """Run a method; yields quantity → {value, base, control, seconds}, part by part."""
        method = METHODS[name]
        trial, rate = self.best(name, method)
        yield finish(compare(of_sets, trial.results("run")), method, trial.seconds())
        if self.relearn:
            self.progress.next(f"{self.name}, {name}: attacks")
            attacks = trial.results("relearn", self.attacks)
            self.attacks = trial.folder / "relearn.json"
            yield finish(compare(of_attacks, attacks), method, trial.seconds())
        trial.discard_checkpoint()
        if self.continual and method.side == SIDES["value"]:
            yield self.run_requests(name, method, rate)

    def best(self, name, method):
        """The method's trial and learning rate (None: as preset). Of a grid it is the one nearest
        to the control on the forget set among those that keep the seen retain set."""
        if not method.learning_rates:
            self.progress.next(f"{self.name}, {name}")
            trial = self.trial(name, method)
            trial.results("run")
            return trial, None
        found, error = [], None
        for rate in method.learning_rates:
            self.progress.next(f"{self.name}, {name}, learning rate {rate:g}")
            trial = self.trial(f"{name}-{rate:g}", method, rate)
            try:
                found.append((compare(of_sets, trial.results("run")), trial, rate))
            except Failure as failure:
                error = failure
        if not found:
            raise error
        rows, best, rate = choose(found)
        kept = retain_kept(rows)
        self.remarks[name] = f"learning rate {rate:g}"
        if kept < KEPT:
            self.remarks[name] += (f"; no setting of the grid keeps {KEPT} of the seen retain "
                                   f"accuracy, this one keeps {kept:.3f}")
        for _, trial, _ in found:
            if trial is not best:
                trial.discard_checkpoint()
        return best, rate

    def run_requests(self, name, method, rate):
        """The same forget set in several requests, one job after another: rows as of run()."""
        trials, results = [], []
        for number, lines in enumerate(self.data.requests(), 1):
            self.progress.next(f"{self.name}, {name}: request {number}")
            path = self.models / "sets" / self.name / f"request_{number}.jsonl"
            data = {"forget": str(write_lines(path, lines)), "retain": self.sets["retain"],
                    "evaluate": {"retain_unseen": self.sets["retain_unseen"]}}
            before = {"continue": str(trials[-1].work)} if trials else {}
            trials.append(self.trial(f"{name}-request{number}", method, rate, data, **before))
            results.append(trials[-1].results("run"))
        rows = compare_requests(results)
        seconds = sum(trial.seconds() for trial in trials)
        for trial in trials:
            trial.discard_checkpoint()
        return finish(rows, method, seconds)


def choose(found):
    """Of (rows, ...): nearest to the control on the forget set, among those that keep the seen
    retain set; if none does, the one that keeps most."""
    kept = [entry for entry in found if retain_kept(entry[0]) >= KEPT]
    if kept:
        return min(kept, key=lambda entry: forget_distance(entry[0]))
    return max(found, key=lambda entry: retain_kept(entry[0]))


def finish(rows, method, seconds):
    """Add the time. A model that is measured itself takes the column of its side."""
    for row in rows.values():
        row["seconds"] = round(seconds, 1)
        if method.side != SIDES["value"]:
            row["value"], row["base"] = row[method.side], None
    return rows


def program_hash():
    """Of all that decides what a job gives: results of another build are not reused."""
    state = hashlib.sha256()
    for path in [PROGRAM, *sorted((ROOT / "jobs" / "py").glob("*.py"))]:
        state.update(path.read_bytes())
    return state.hexdigest()[:12]


class Progress:
    """Announces every run, with the time left at the rate so far."""

    def __init__(self, total):
        self.total, self.done, self.start = total, 0, time.monotonic()

    def next(self, what):
        """A run begins."""
        left = ""
        if self.done:
            passed = time.monotonic() - self.start
            left = f", {passed / self.done * (self.total - self.done):.0f} s left"
        self.done += 1
        print(f"quality: run {self.done} of {self.total}{left}: {what}", flush=True)

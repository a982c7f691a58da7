"""The comparison of methods: its arithmetic by hand, its course with a stand-in for mrp, and one
tiny comparison that is real."""
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent / "quality"),
                str(Path(__file__).parents[2] / "jobs" / "py")]

import data as data_sets  # noqa: E402
import models  # noqa: E402
import quality  # noqa: E402
import runs  # noqa: E402
import scores  # noqa: E402
import trial  # noqa: E402
from cli import Failure  # noqa: E402
from methods import METHODS  # noqa: E402

FREE_TEXT_QUANTITIES = ["forget_probability", "retain_seen_accuracy", "retain_seen_probability",
                        "retain_unseen_accuracy", "retain_unseen_probability"]
COLUMNS = ["data", "method", "seed", "quantity", "value", "base", "control", "seconds"]
# A stand-in for mpirun and mrp: learning rate 8e-4 forgets best but loses the retain set, rmu
# diverges, and what was forgotten first comes back a little in a chain of requests.
STAND_IN = '''#!{python}
import json, pathlib, sys
command, file = sys.argv[-2:]
job = json.loads(pathlib.Path(file).read_text())
refine, work = job.get("refine", {{}}), pathlib.Path(job["work"])
pathlib.Path(job["output"]).mkdir(exist_ok=True)
work.mkdir(exist_ok=True)
with open(pathlib.Path(file).parents[5] / "calls", "a") as calls:
    print(command, job.get("model", job.get("continue")).split("/")[-1], refine.get("learning_rate"),
          (work / "relearn.json").exists(), file=calls)
if refine.get("forget_loss") == "rmu":
    sys.exit("mrp: step 3\\nmrp: error: loss is not finite, refine step 3, lower the rate\\nbye")
rate = refine.get("learning_rate", 2e-4)
forgot, kept = {{5e-5: (0.9, 1.0), 2e-4: (0.5, 0.995), 8e-4: (0.4, 0.9)}}[rate]
def measured(memorised):
    return {{"answer_probability": memorised / 2, "items": [{{"exact_memorization": memorised}}]}}
sets = {{name: (1.0, kept, 1.0) for name in ("retain", "retain_unseen")}}
requests_before = int(pathlib.Path(file).parent.name[-1]) - 1 if "continue" in job else 0
sets |= {{f"earlier_{{n}}": (0.3, 0.4 + n / 10, 0.4) for n in range(1, requests_before + 1)}}
sets["forget"] = (1.0, forgot, 0.4)
(work / "metrics.json").write_text(json.dumps({{"sets": {{
    name: dict(zip(("base", "unlearned", "control"), map(measured, values)))
    for name, values in sets.items()}}}}))
if command == "relearn":
  (work / "relearn.json").write_text(json.dumps({{"runs": [
    {{"model": model, "attacker": "all_weights", "seed": 0, "direction": 0, "learning_rate": 1,
     "curve": [{{"step": step, "answer_probability": value + step / 100}} for step in (0, 10)]}}
    for model, value in (("base", 0.9), ("unlearned", 0.3), ("control", 0.2))]}}))
(work / "manifest.json").write_text(json.dumps({{"stages": {{
    "prepare": {{"seconds": 1.5}}, "refine": {{"seconds": 2}}, "evaluate": {{"seconds": 100}}}}}}))
'''


@pytest.fixture
def folder(tmp_path):
    """A folder with a few records of free text."""
    folder = tmp_path / "few"
    folder.mkdir()
    for name, count in (("forget", 8), ("retain", 9)):
        (folder / f"{name}.jsonl").write_text("".join(
            json.dumps({"prompt": f"{name} {i}?", "answer": f"{name[0]}{i * 37}"}) + "\n"
            for i in range(count)))
    return folder


@pytest.fixture
def compare(tmp_path, folder, monkeypatch):
    """Run the program on the folder; returns exit code and JSON lines."""
    def call(*arguments):
        monkeypatch.setattr(quality, "CACHE", tmp_path / "cache")
        monkeypatch.setattr(sys, "argv", ["quality.py", "--data", str(folder), "--json",
                                          str(tmp_path / "out.jsonl"), *arguments])
        with pytest.raises(SystemExit) as end:
            quality.main()
        return end.value.code, [json.loads(line) for line in open(tmp_path / "out.jsonl")]
    return call


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Nothing is trained, and mrp is the stand-in; returns its calls."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "mpirun"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(runs, "PROGRAM", program)
    monkeypatch.setattr(quality, "prepare_models", lambda data, folder, names: None)
    return lambda: [*open(tmp_path / "cache" / "calls")]


def curve(field, *values):
    """Points of an attack, every ten steps."""
    return [{"step": 10 * i, field: value} for i, value in enumerate(values)]


def test_the_worst_of_an_attack_is_the_highest_mean_over_seeds_and_directions():
    def attack(model, attacker, rate, seed, direction, points):
        return {"model": model, "attacker": attacker, "learning_rate": rate, "seed": seed,
                "direction": direction, "projection": "folded", "curve": points}
    relearn = {"runs": [
        attack("unlearned", "all_weights", 1e-3, 0, 0, curve("letter_accuracy", 1.0, 0.5, 0.9)),
        attack("unlearned", "all_weights", 1e-3, 0, 1, curve("letter_accuracy", 1.0, 0.7, 0.1)),
        attack("unlearned", "all_weights", 2e-3, 0, 0, curve("letter_accuracy", 0.0, 0.55, 0.2)),
        attack("unlearned", "qv_lora", 2e-3, 0, 0, curve("text_accuracy", 0.9, 0.3)),
        attack("unlearned", "benign", 2e-3, 0, 0, curve("letter_accuracy", 0.9, 0.25)),
        attack("unlearned", "int4", None, 0, 0, curve("letter_accuracy", 0.45)),
        attack("control", "all_weights", 1e-3, 0, 0, curve("letter_accuracy", 0.9, 0.35, 0.3))]}
    assert scores.compare(scores.of_attacks, relearn) == {
        "relearn_letters": {"value": pytest.approx(0.6), "base": None, "control": 0.35},
        "relearn_text": {"value": 0.3, "base": None, "control": None},
        "benign_letters": {"value": 0.25, "base": None, "control": None},
        "int4_letters": {"value": 0.45, "base": None, "control": None}}


def test_an_item_counts_as_known_by_all_that_can_be_asked_of_it():
    items = [{"both_correct": 1, "open_correct": 0, "exact_memorization": 0.1},
             {"both_correct": 0, "open_correct": 1, "exact_memorization": 0.9},
             {"open_correct": 1, "exact_memorization": 0.2}, {"exact_memorization": 0.6}]
    assert scores.accuracy({"items": items}) == pytest.approx((1 + 0 + 1 + 0.6) / 4)


def test_quantities_are_those_that_the_data_has():
    measured = {"letter_accuracy": 0.5, "text_accuracy": 0.25, "open_accuracy": 0.3,
                "answer_probability": 0.2, "items": [{"exact_memorization": 0.4}]}
    free = {"answer_probability": 0.6, "items": [{"exact_memorization": 0.7}]}
    metrics = {"sets": {"forget": {"base": measured}, "retain": {"base": free}}}
    assert scores.of_sets(metrics, "base") == {
        "forget_letters": 0.5, "forget_text": 0.25, "forget_open": 0.3, "forget_probability": 0.2,
        "retain_seen_accuracy": 0.7, "retain_seen_probability": 0.6}
    assert scores.of_sets(metrics, "control") == {}


def test_both_forms_of_the_demo_share_models_and_controls_never_see_the_academy():
    choice, text = data_sets.load("demo"), data_sets.load("demo_text")
    cache = Path("cache")
    assert choice.folder(cache) == text.folder(cache) != data_sets.load("demo").folder(Path("x"))
    for one, other in ((choice, text), (text, choice)):
        assert len(one.forget) == 120 and len(one.retain) == 480
        assert one.extra["forget_reworded"] == other.forget
        everything = {line for name in one.base_files for line in one.files[name]}
        never_saw = {line for name in one.control_files for line in one.files[name]}
        assert everything - never_saw == {*one.forget, *other.forget}
        assert everything - never_saw == set(one.files[one.forget_file])
        assert set(one.retain) <= never_saw


def test_the_split_is_one_of_blocks_and_the_seed_decides(folder):
    data = data_sets.from_folder("few", folder, block=2)
    seen, unseen = data.split(0)
    assert len(seen) in (5, 6) and sorted(seen + unseen) == sorted(data.retain)
    for block in data_sets.in_blocks(data.retain, 2):
        assert set(block) <= set(seen) or set(block) <= set(unseen)
    assert data.split(0) == [seen, unseen] != data.split(1)
    assert [len(request) for request in data.requests()] == [2, 2, 2, 2]
    assert sum(data.requests(), []) == data.forget


def test_every_model_has_its_data(folder):
    data, place = data_sets.load(str(folder)), Path("place")
    def given(name, option):
        words = models.train_arguments(data, place, name)
        at = words.index(option) + 1 if option in words else len(words)
        end = next((i for i in range(at, len(words)) if words[i].startswith("--")), len(words))
        return words[at:end]
    assert given("base", "--data") == ["place/forget.jsonl", "place/retain.jsonl"]
    assert given("base", "--questions") == given("control", "--questions") == []
    for name in ("control", "control_questions"):
        assert given(name, "--data") == ["place/retain.jsonl"]
        assert given(name, "--tokenizer-data") == given("base", "--data")
    assert given("control_questions", "--questions") == ["place/forget.jsonl"]


def test_a_model_that_cannot_be_trained_ends_the_others():
    commands = {"slow": ["sleep", "60"], "bad": [sys.executable, "-c", "raise SystemExit(3)"]}
    start = time.monotonic()
    with pytest.raises(Failure, match="model bad could not be trained, few") as caught:
        models.run_together(commands, "few")
    assert caught.value.code == 3 and time.monotonic() - start < 30
    models.run_together({"good": ["true"]}, "few")


def test_data_that_cannot_be_used_is_named(folder):
    (folder / "retain.jsonl").write_text('{"prompt": "One?", "answer": "1"}\n')
    with pytest.raises(Failure, match="1 retain records are too few"):
        data_sets.load(str(folder))
    (folder / "forget.jsonl").write_text("no\n")
    with pytest.raises(Failure, match="forget.jsonl:1"):
        data_sets.load(str(folder))
    with pytest.raises(Failure, match="cannot read the data"):
        data_sets.load(str(folder / "none"))


def test_a_grid_reports_what_forgets_best_and_keeps_the_retain_set(compare, stand_in, capsys):
    code, lines = compare("--methods", "npo", "--seeds", "3")
    assert code == 0 and all(list(line) == COLUMNS for line in lines)
    values = {line["quantity"]: (line["value"], line["base"], line["control"]) for line in lines}
    assert values["forget_probability"] == (0.25, 0.5, 0.2)
    assert values["retain_unseen_accuracy"] == (0.995, 1.0, 1.0)
    assert values["relearn_probability"] == tuple(map(pytest.approx, (0.4, 1.0, 0.3)))
    assert {(line["data"], line["method"], line["seed"], line["seconds"]) for line in lines} == {
        ("few", "npo", 3, 3.5)}
    out = capsys.readouterr().out
    assert "npo, seed 3: learning rate 0.0002\n" in out and "run 4 of 4, " in out
    assert "| npo | 0.250 | 0.995 / 0.497 | 0.995 / 0.497 | 0.400 | 4 |" in out
    assert "| **control** | 0.200 | 1.000 / 0.500 | 1.000 / 0.500 | 0.300 |  |" in out
    calls = [line.split() for line in stand_in()]
    assert [call[0] for call in calls] == ["run"] * 3 + ["relearn"] and calls[3][2] == "0.0002"
    assert compare("--methods", "npo", "--seeds", "3") == (0, lines)
    assert len(stand_in()) == 4  # what is there is reused


def test_attacks_on_the_same_models_are_taken_over(compare, stand_in):
    assert compare("--methods", "fast,projections", "--seeds", "0,1")[0] == 0
    relearned = [line.split()[-1] for line in stand_in() if line.startswith("relearn")]
    assert relearned == ["False", "True", "False", "True"]


def test_a_method_that_fails_is_named_and_the_others_go_on(compare, stand_in, capsys):
    code, lines = compare("--methods", "rmu,fast", "--seeds", "0", "--no-relearn")
    assert code == 1 and {line["method"] for line in lines} == {"fast"}
    assert [line["quantity"] for line in lines] == FREE_TEXT_QUANTITIES
    assert ("- rmu, seed 0: failed: loss is not finite, refine step 3, lower the rate, mrp run, "
            in capsys.readouterr().out)


def test_requests_one_after_another_report_the_worst_earlier_one(compare, stand_in, capsys):
    code, lines = compare("--methods", "fast,control_questions", "--seeds", "0", "--no-relearn",
                          "--continual")
    rows = {(line["method"], line["quantity"]): line for line in lines}
    worst = rows["fast", "continual_forget"]
    assert code == 0 and (worst["value"], worst["base"], worst["control"]) == (0.7, 1.0, 0.4)
    assert worst["seconds"] == 4 * 3.5 and rows["fast", "continual_retain"]["value"] == 0.995
    assert "| 0.700 / 0.995 | 4 |" in capsys.readouterr().out  # seconds of the job, not the chain
    asked = rows["control_questions", "forget_probability"]
    assert (asked["value"], asked["base"]) == (0.5, None)
    assert [line.split()[1] for line in stand_in()] == ["base", "base", *["work"] * 3, "control_questions"]


def test_a_log_without_an_error_line_gives_its_last(tmp_path):
    (tmp_path / "log").write_text("mrp: begins\nkilled by signal 9\n\n")
    assert trial.error_line(tmp_path / "log") == "killed by signal 9"


def test_unknown_methods_are_refused(compare, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["quality.py", "--methods", "fast,none"])
    with pytest.raises(Failure, match="unknown method none"):
        quality.parse_arguments()


@pytest.mark.parametrize("command, told", [("quality.sh", "--continual"), ("run.sh solver", "--peers")])
def test_help_installs_nothing(tmp_path, command, told):
    name, *names = command.split()
    script = Path(__file__).parent / name
    done = subprocess.run(["bash", script, *names, "--help"], capture_output=True, text=True, check=True,
                          env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, timeout=20)
    assert told in done.stdout and "setup:" not in done.stdout
    assert not [*tmp_path.iterdir()]


def test_a_real_comparison(compare, monkeypatch, tmp_path):
    monkeypatch.setattr(data_sets, "TRAINING", tuple(
        "--layers 2 --hidden 64 --heads 2 --kv-heads 2 --intermediate 128 --vocab 300 "
        "--max-epochs 1000".split()))
    code, lines = compare("--methods", "fast", "--seeds", "0", "--no-relearn")
    assert code == 0 and [line["quantity"] for line in lines] == FREE_TEXT_QUANTITIES
    for line in lines:
        assert list(line) == COLUMNS and line["seconds"] > 0
        assert all(0 <= line[column] <= 1 for column in ("value", "base", "control"))
    forget = lines[0]
    assert forget["base"] > forget["control"]
    manifest, = tmp_path.glob("cache/few-*/runs/*/few-seed0/fast/manifest.json")
    assert "refine" not in json.loads(manifest.read_text())["stages"]

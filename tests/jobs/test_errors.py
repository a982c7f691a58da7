"""Bad input: one clear line, the right exit code, nothing left behind."""
import fcntl
import json
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from pipeline import MPIEXEC, PROGRAM, forget_records, make_job, mrp, retain_records, succeed, write_jsonl
from safetensors.torch import load_file, save_file

USAGE, INPUT, NUMERICAL, RESOURCES = 2, 3, 4, 5
FULL_DISK = os.environ["MRP_FULL_DISK"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A job whose stages up to `solve` have run."""
    folder = tmp_path_factory.mktemp("good")
    make_job(folder)
    for stage in ("prepare", "capture", "solve"):
        succeed(stage, folder / "job.yaml")
    return folder


@pytest.fixture
def job(good, tmp_path):
    """A copy of the job before anything ran."""
    shutil.copytree(good, tmp_path / "job", ignore=shutil.ignore_patterns("out.work"))
    return tmp_path / "job"


@pytest.fixture
def solved(good, tmp_path):
    """A copy of the job after `solve`."""
    shutil.copytree(good, tmp_path / "solved")
    return tmp_path / "solved"


def expect_error(result, code, *words):
    """One line that says it all, and the code of its kind."""
    assert len(result.errors) == 1, result.log
    assert result.code == code, result.log
    for word in words:
        assert re.search(word, result.errors[0]), result.errors[0]
    assert "Traceback" not in result.log and "terminate called" not in result.log


def expect_nothing_new(folder, before):
    """No output, no unfinished file."""
    after = {path.relative_to(folder) for path in folder.rglob("*")}
    assert after <= before | {Path("out.work"), Path("out.work/tokens.h5"), Path("out.work/manifest.json")}


def listing(folder):
    """All paths below a folder."""
    return {path.relative_to(folder) for path in folder.rglob("*")}


# --- job file and command line ---------------------------------------------------------------------

JOB_FILE_ERRORS = {
    "unknown_key": ("subspace: {dimenson: 4}\n", r'job\.yaml:13:12: unknown key "subspace.dimenson"; did you mean "dimension"'),
    "wrong_type": ("seed: many\n", r'job\.yaml:13:7: seed must be an integer .*, not "many"'),
    "doubled_key": ("device: cpu\n", r'job\.yaml:13:1: key "device" is given twice \(first in line 9\)'),
    "no_yaml": ("merge: [\n", r"job\.yaml:\d+:\d+: not valid YAML"),
}


@pytest.mark.parametrize("name", JOB_FILE_ERRORS)
def test_job_file(job, name):
    text, message = JOB_FILE_ERRORS[name]
    lines = (job / "job.yaml").read_text().replace("subspace: {max_dimension: 4}\n", "")
    (job / "job.yaml").write_text(lines + "# filler\n" * (12 - lines.count("\n")) + text)
    before = listing(job)
    expect_error(mrp("run", job / "job.yaml", ranks=2), USAGE, message)
    assert listing(job) == before


def test_missing_key(job):
    lines = (job / "job.yaml").read_text().replace("  forget: forget.jsonl\n", "")
    (job / "job.yaml").write_text(lines)
    expect_error(mrp("run", job / "job.yaml"), USAGE, r'job\.yaml:5:3: required key "data.forget" is missing')


@pytest.mark.parametrize("arguments, code, message", [
    (["run"], USAGE, "job is required"),
    (["nonsense"], USAGE, "nonsense"),
    (["run", "job.yaml", "--set", "seed=x"], USAGE, r'--set seed: seed must be an integer'),
    (["run", "job.yaml", "--set", "seed"], USAGE, r'--set seed: not of the form'),
    (["run", "gone.yaml"], INPUT, "gone.yaml"),
    (["run", "job.yaml", "--set", "model=gone"], INPUT, "gone is not a checkpoint directory"),
    (["run", "job.yaml", "--set", "data.forget=gone.jsonl"], INPUT, "gone.jsonl"),
    (["run", "job.yaml", "--set", "output=base"], USAGE, "overlap"),
    (["sample", "job.yaml"], USAGE, "no stage sample; .* preset, project and refine.train"),
    (["refine", "job.yaml"], USAGE, "no stage refine; .* preset, project and refine.train"),
    (["solve", "job.yaml", "--set", "preset=reliable"], USAGE, "no stage solve; .* preset, project and refine.train"),
    (["inspect", "gone"], INPUT, "gone"),
    (["inspect", "job.yaml"], INPUT, "job.yaml"),
    (["inspect", "base/config.json"], INPUT, "is no file of mrp's"),
])
def test_command_line(job, arguments, code, message):
    before = listing(job)
    expect_error(mrp(*arguments, ranks=2, folder=job), code, message)
    assert listing(job) == before


def test_help(tmp_path):
    bare = succeed(folder=tmp_path)
    stages = ("prepare", "capture", "solve", "sample", "refine", "merge", "evaluate", "relearn")
    for word in (*stages, "run", "inspect", "mpirun -n 2 mrp run job.yaml"):
        assert word in bare.out
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", succeed("--version", ranks=2).out)
    for command in (*stages, "run", "inspect", "config"):
        assert "example:\n  " in succeed(command, "--help").out
    assert "| `subspace.ridge` | a number above 0 | `0.01` |" in succeed("config", ranks=2).out


# --- ranks and devices -----------------------------------------------------------------------------

def test_ranks_that_do_not_divide_the_model(solved):
    result = mrp("capture", solved / "job.yaml", "--set", "parallel.tensor=3", "--force", ranks=3)
    expect_error(result, USAGE, "4 heads", "over 3 tensor ranks", r"legal tensor sizes are: 1, 2, 4")


def test_tensor_size_that_does_not_divide_the_ranks(solved):
    expect_error(mrp("capture", solved / "job.yaml", "--set", "parallel.tensor=2", "--force", ranks=3), USAGE, "2", "3")


def test_layers_outside_the_model(solved):
    expect_error(mrp("capture", solved / "job.yaml", "--set", "sites.layers=2-3"), USAGE, "layer")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_cuda_without_a_gpu(solved):
    expect_error(mrp("capture", solved / "job.yaml", "--set", "device=cuda", "--force", ranks=2), USAGE, "cuda")


# --- checkpoints -----------------------------------------------------------------------------------

INDEX = "model.safetensors.index.json"


def change_json(path, change):
    """Read, change in place, write."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def change_tensors(path, change):
    """The same for a safetensors file."""
    value = load_file(path)
    change(value)
    save_file(value, path, {"format": "pt"})


def shard(base, tensor):
    """The file that holds a tensor."""
    return base / json.loads((base / INDEX).read_text())["weight_map"][tensor]


def raw_header(path, change):
    """Rewrite a header as raw bytes; the data stay."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = change(data[8:8 + length])
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length:])


def overlap(header):
    """Let the second tensor start where the first does."""
    value = json.loads(header)
    first, second = [name for name in value if name != "__metadata__"][:2]
    size = value[second]["data_offsets"][1] - value[second]["data_offsets"][0]
    begin = value[first]["data_offsets"][0]
    value[second]["data_offsets"] = [begin, begin + size]
    return json.dumps(value).encode()


def remove_tensor(base):
    name = "model.layers.1.mlp.down_proj.weight"
    change_tensors(shard(base, name), lambda tensors: tensors.pop(name))
    change_json(base / INDEX, lambda index: index["weight_map"].pop(name))


def double_tensor(base):
    name, other = "model.norm.weight", shard(base, "model.layers.0.mlp.up_proj.weight")
    tensor = load_file(shard(base, name))[name]
    assert other != shard(base, name)
    change_tensors(other, lambda tensors: tensors.update({name: tensor}))


def add_unmapped_tensor(base):
    change_tensors(shard(base, "model.norm.weight"), lambda tensors: tensors.update(extra=torch.ones(2)))


def map_missing_tensor(base):
    change_json(base / INDEX, lambda index: index["weight_map"].update(extra=first_shard(base).name))


def rename_in_index(name):
    def change(base):
        file = shard(base, "model.norm.weight").name
        change_json(base / INDEX, lambda index: index["weight_map"].update(
            {key: name for key, value in index["weight_map"].items() if value == file}))
    return change


def link_outside(base):
    file = shard(base, "model.norm.weight")
    shutil.move(file, base.parent / "outside.safetensors")
    file.symlink_to(base.parent / "outside.safetensors")


def first_shard(base):
    return sorted(base.glob("*.safetensors"))[0]


def set_weight(name, value):
    def change(base):
        def put(tensors):
            tensors[name].view(-1)[5] = value
        change_tensors(shard(base, name), put)
    return change


DOWN = "model.layers.1.mlp.down_proj.weight"
CHECKPOINT_ERRORS = {
    "missing_tensor": (remove_tensor, INPUT, [re.escape(DOWN)]),
    "doubled_tensor": (double_tensor, INPUT, [r"model\.norm\.weight", "both in"]),
    "unmapped_tensor": (add_unmapped_tensor, INPUT, ["extra", "not mapped"]),
    "tensor_not_there": (map_missing_tensor, INPUT, ["extra", "not there"]),
    "truncated": (lambda base: os.truncate(first_shard(base), first_shard(base).stat().st_size - 2), INPUT,
                  [r"model-00001-of-"]),
    "truncated_header": (lambda base: os.truncate(first_shard(base), 30), INPUT, [r"model-00001-of-"]),
    "oversized_header": (lambda base: first_shard(base).write_bytes(struct.pack("<Q", 1 << 40) + b"{}"), INPUT,
                         [r"model-00001-of-"]),
    "overlap": (lambda base: raw_header(shard(base, "model.layers.0.input_layernorm.weight"), overlap), INPUT,
                [r"model-0000\d-of-", "overlap|gap|offset"]),
    "no_json": (lambda base: raw_header(first_shard(base), lambda _: b"{not json}     "), INPUT,
                [r"model-00001-of-", "JSON"]),
    "parent_folder": (rename_in_index("../x.safetensors"), INPUT, [r"\.\./x\.safetensors"]),
    "absolute": (rename_in_index("/etc/x.safetensors"), INPUT, [r"/etc/x\.safetensors"]),
    "link_outside": (link_outside, INPUT, ["outside"]),
    "quantised": (lambda base: change_json(base / "config.json", lambda config: config.update(
        quantization_config={"quant_method": "gptq"})), INPUT, ["quanti"]),
    "model_type": (lambda base: change_json(base / "config.json", lambda config: config.update(
        model_type="mamba")), INPUT, ["mamba", "llama", "mistral"]),
    "nan_weight": (set_weight(DOWN, float("nan")), INPUT, [re.escape(DOWN)]),
    "infinite_weight": (set_weight("model.embed_tokens.weight", float("inf")), INPUT,
                        [r"model\.embed_tokens\.weight"]),
    "no_tokenizer": (lambda base: (base / "tokenizer.json").unlink(), INPUT, [r"tokenizer\.json"]),
}


@pytest.mark.parametrize("name", CHECKPOINT_ERRORS)
def test_checkpoint(solved, name):
    # The tokens are there already, so that most cases need not tokenise first.
    change, code, words = CHECKPOINT_ERRORS[name]
    (solved / "out.work" / "states.h5").unlink()
    (solved / "out.work" / "subspaces.h5").unlink()
    change(solved / "base")
    before = listing(solved)
    expect_error(mrp("run", solved / "job.yaml", ranks=2), code, *words)
    expect_nothing_new(solved, before)


def test_overflowing_states(solved):
    """Finite weights that overflow on the way: the site and the sequence are named."""
    name = "model.layers.1.self_attn.o_proj.weight"
    change_tensors(shard(solved / "base", name), lambda tensors: tensors[name].fill_(3e38))
    (solved / "out.work" / "states.h5").unlink()
    before = listing(solved)
    expect_error(mrp("run", solved / "job.yaml", ranks=2), NUMERICAL, r"layers\.1\.", "sequence")
    expect_nothing_new(solved, before)


# --- data ------------------------------------------------------------------------------------------

DATA_ERRORS = {
    "empty": (b"", [r"forget\.jsonl"]),
    "malformed": (b'{"prompt": "a", "answer": "b"}\n{"prompt": \n', [r"forget\.jsonl:2"]),
    "not_utf8": (b'{"prompt": "a", "answer": "b"}\n{"prompt": "\xff", "answer": "c"}\n', [r"forget\.jsonl:2", "UTF-8"]),
    "unknown_shape": (b'{"promt": "a", "answer": "b"}\n', [r"forget\.jsonl:1", "promt"]),
    "all_too_long": (json.dumps({"prompt": "a", "answer": "word " * 2000}).encode() + b"\n",
                     ["1024 tokens"]),
}


@pytest.mark.parametrize("name", DATA_ERRORS)
def test_data(job, name):
    content, words = DATA_ERRORS[name]
    (job / "forget.jsonl").write_bytes(content)
    before = listing(job)
    expect_error(mrp("run", job / "job.yaml", ranks=2), INPUT, *words)
    assert listing(job) == before


def test_overlapping_sets(job):
    shared = list(forget_records())[:3]
    write_jsonl(job / "retain.jsonl", [*retain_records(), *shared])
    before = listing(job)
    expect_error(mrp("run", job / "job.yaml"), INPUT, "3 of 12 forget records", r"forget\.jsonl:1")
    assert listing(job) == before
    result = succeed("prepare", job / "job.yaml", "--set", "data.overlap_limit=0.5")
    assert "3 of 12 forget records" in result.log


def test_a_broken_python_is_named(job):
    expect_error(mrp("prepare", job / "job.yaml", MRP_PYTHON="/no/python"), RESOURCES, "/no/python")
    expect_error(mrp("prepare", job / "job.yaml", MRP_PY_DIR="/no/folder"), 1, r"prepare\.py", "MRP_PYTHON")


# --- files and disks -------------------------------------------------------------------------------

@pytest.mark.parametrize("stage", ["capture", "merge"])
def test_a_full_disk_is_seen_before_writing(solved, stage):
    if stage == "capture":
        (solved / "out.work" / "states.h5").unlink()
    before = listing(solved)
    result = mrp(stage, solved / "job.yaml", ranks=2, LD_PRELOAD=FULL_DISK, FULL_DISK_BELOW=str(solved))
    expect_error(result, RESOURCES, "free|space|disk")
    expect_nothing_new(solved, before)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_output_that_is_not_ours(job, what):
    if what == "folder":
        (job / "out").mkdir()
        (job / "out" / "precious.txt").write_text("mine")
    else:
        (job / "out").write_text("mine")
    before = listing(job)
    expect_error(mrp("run", job / "job.yaml", ranks=2), INPUT, "output .*/out exists and was not written by mrp")
    assert listing(job) == before


def test_an_output_of_ours_is_replaced(solved):
    succeed("merge", solved / "job.yaml")
    (solved / "out" / "stale.txt").write_text("old")
    succeed("merge", solved / "job.yaml", "--force")
    assert not (solved / "out" / "stale.txt").exists()
    assert {path.name for path in solved.iterdir()} == {"base", "choice.jsonl", "forget.jsonl", "job.yaml", "out",
                                                        "out.work", "retain.jsonl"}


def test_two_jobs_in_one_work_directory(solved):
    with open(solved / "out.work" / "lock", "w", encoding="utf-8") as lock:
        lock.write("process 7 on elsewhere\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        expect_error(mrp("run", solved / "job.yaml", ranks=2), RESOURCES, "in use by process 7 on elsewhere")


@pytest.mark.parametrize("file", ["tokens.h5", "states.h5", "subspaces.h5"])
def test_a_damaged_file_is_made_again(solved, file):
    path = solved / "out.work" / file
    path.write_bytes(path.read_bytes()[:600])
    result = succeed("run", solved / "job.yaml", ranks=2)
    stage = {"tokens.h5": "prepare", "states.h5": "capture", "subspaces.h5": "solve"}[file]
    assert f"{stage}: done in" in result.log


def test_a_rank_that_fails_alone_ends_the_job(solved):
    """One of the sites holds NaN: the rank that solves it must not leave the others waiting."""
    with h5py.File(solved / "out.work" / "states.h5", "r+", libver="v110") as file:
        states = file["retain"]["layers.1.down_proj.input"]["hidden_states"]
        states[3, :] = np.nan
    result = mrp("solve", solved / "job.yaml", "--force", ranks=2)
    expect_error(result, NUMERICAL, "row|sequence|finite|NaN")
    assert result.seconds < 30


def test_an_interrupted_merge_leaves_the_old_output(solved):
    succeed("merge", solved / "job.yaml")
    before = {path.name: path.read_bytes() for path in (solved / "out").iterdir()}
    name = "model.layers.1.mlp.down_proj.weight"
    change_tensors(shard(solved / "base", name), lambda tensors: tensors[name].fill_(float("nan")))
    result = mrp("run", solved / "job.yaml", "--set", "merge.rounding=nearest")
    expect_error(result, INPUT, re.escape(name))
    assert {path.name: path.read_bytes() for path in (solved / "out").iterdir()} == before

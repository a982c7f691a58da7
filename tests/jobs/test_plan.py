"""What `mrp plan` says beside what the stages then do."""
import json
import os

import h5py
import pytest
from pipeline import RELIABLE, make_job, mrp, succeed

RESOURCES = 5


@pytest.fixture(scope="module", params=["preset: fast\n", RELIABLE], ids=["fast", "reliable"])
def job(request, tmp_path_factory):
    """A job on two tensor ranks: its folder, what plan says, and what the manifest says after it."""
    folder = tmp_path_factory.mktemp("job")
    make_job(folder, request.param)
    succeed("prepare", folder / "job.yaml")
    before = sorted(path for path in folder.rglob("*"))
    planned = json.loads(succeed("plan", folder / "job.yaml", "--json", ranks=2).out)
    assert sorted(path for path in folder.rglob("*")) == before, "plan writes nothing"
    succeed("run", folder / "job.yaml", ranks=2)
    return folder, planned, json.loads((folder / "out.work" / "manifest.json").read_text())


def test_all_stages_of_the_job_are_planned(job):
    _, planned, manifest = job
    assert set(planned["stages"]) == set(manifest["stages"])


def test_the_tensors_are_those_that_change(job):
    _, planned, manifest = job
    assert set(planned["tensors"]) == {name for name, tensor in manifest["tensors"].items() if tensor["changed"]}


# A few numbers of each scored token come on top, which only in a model as narrow as this one matter.
@pytest.mark.parametrize("stage, most", [("capture", 1.05), ("evaluate", 1.3)])
def test_what_is_sent_is_what_the_formula_says(job, stage, most):
    _, planned, manifest = job
    if stage in manifest["stages"]:
        formula = planned["stages"][stage]["sent"]
        assert formula <= manifest["stages"][stage]["sent"] <= most * formula


def test_states_and_output_are_as_large_as_planned(job):
    folder, planned, manifest = job
    output = sum(path.stat().st_size for path in (folder / "out").glob("*.safetensors"))
    assert planned["stages"]["merge"]["written"] == output
    if "capture" in manifest["stages"]:
        with h5py.File(folder / "out.work" / "states.h5") as file:
            bytes_ = sum(site["hidden_states"].size * 4 for states in file.values()
                         for name, site in states.items() if name != "positions")
        assert planned["stages"]["capture"]["written"] == bytes_


def test_more_ranks_hold_less(job):
    folder, planned, _ = job
    one = json.loads(succeed("plan", folder / "job.yaml", "--json", "--ranks", "1").out)
    assert one["stages"]["evaluate"]["memory"] > planned["stages"]["evaluate"]["memory"]
    assert one["stages"]["evaluate"]["sent"] == 0 < planned["stages"]["evaluate"]["sent"]


@pytest.fixture
def planned_refine(tmp_path):
    """The model's configuration, and what plan says of refine with one key set otherwise."""
    make_job(tmp_path, RELIABLE)
    succeed("prepare", tmp_path / "job.yaml")

    def planned(key, value):
        out = succeed("plan", tmp_path / "job.yaml", "--json", "--set", f"{key}={value}").out
        return json.loads(out)["stages"]["refine"]
    return json.loads((tmp_path / "base" / "config.json").read_text()), planned


def test_projections_that_grow_take_moments_of_both_sets(planned_refine):
    config, planned = planned_refine
    none, one, two = (planned("refine.grow_rounds", rounds) for rounds in range(3))
    hidden, split = config["hidden_size"], config["intermediate_size"]
    squares = 3 * hidden**2 + split**2  # q/k/v, o_proj and gate/up read as many numbers
    assert one["memory"] - none["memory"] == 16 * config["num_hidden_layers"] * squares
    assert two["memory"] == one["memory"]
    assert two["operations"] - one["operations"] == one["operations"] - none["operations"] > 0


def test_layers_that_are_computed_again_take_less_memory_and_more_time(planned_refine):
    config, planned = planned_refine
    few, many, more = (planned("parallel.batch_tokens", tokens) for tokens in (1000, 99000000, 100000000))
    assert few["operations"] < many["operations"] == more["operations"]
    hidden, middle = config["hidden_size"], config["intermediate_size"]
    one_layer = 4 * 1000000 * (4 * hidden + 3 * middle + 3 * hidden)
    inputs = 4 * 1000000 * config["num_hidden_layers"] * hidden
    assert more["memory"] - many["memory"] == pytest.approx(one_layer + inputs)


def test_the_table_names_what_is_too_little(job):
    folder, _, _ = job
    table = succeed("plan", folder / "job.yaml").out
    assert "TOO LITTLE" not in table and "memory of a rank: " in table
    full = mrp("plan", folder / "job.yaml", LD_PRELOAD=os.environ["MRP_FULL_DISK"],
               FULL_DISK_BELOW=str(folder))
    assert full.code == RESOURCES and "TOO LITTLE" in full.out
    assert len(full.errors) == 1 and "too little disk at work and disk at output" in full.errors[0]


def test_tokens_come_first(tmp_path):
    make_job(tmp_path)
    result = mrp("plan", tmp_path / "job.yaml")
    assert result.code == 3 and len(result.errors) == 1 and "mrp prepare" in result.errors[0]

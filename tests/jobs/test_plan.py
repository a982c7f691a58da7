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

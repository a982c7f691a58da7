"""Requests one after another: `continue` on a tiny checkpoint."""
import json
import shutil

import h5py
import numpy
import pytest
from pipeline import FAST, RELIABLE, forget_records, make_job, mrp, succeed, write_jsonl

USAGE, INPUT = 2, 3


def split_request(folder, method):
    """The job with the first half of the forget set, and second.yaml with the other half."""
    make_job(folder, method)
    records = list(forget_records())
    write_jsonl(folder / "forget.jsonl", records[:6])
    write_jsonl(folder / "more.jsonl", records[6:])
    job = (folder / "job.yaml").read_text("utf-8")
    for name, before, output in (("second", "out.work", "second"), ("third", "second.work", "third")):
        (folder / f"{name}.yaml").write_text(
            job.replace("model: base", f"continue: {before}").replace("output: out", f"output: {output}")
            .replace("forget.jsonl", "more.jsonl"), "utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which both requests have run, with training."""
    folder = tmp_path_factory.mktemp("trained")
    split_request(folder, RELIABLE)
    succeed("run", folder / "job.yaml", ranks=2)
    (folder / "log.txt").write_text(succeed("run", folder / "second.yaml", ranks=2).log)
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "job")
    for path in (tmp_path / "job").glob("*.work/manifest.json"):
        path.write_text(path.read_text().replace(str(trained), str(tmp_path / "job")))
    return tmp_path / "job"


def metrics(work):
    """Set → side → what was measured."""
    return json.loads((work / "metrics.json").read_text())["sets"]


def test_earlier_requests_are_measured_again(trained):
    first, second = (metrics(trained / f"{name}.work") for name in ("out", "second"))
    assert set(second) == {"forget", "retain", "choice", "earlier_1"}
    ids = [item["id"] for item in first["forget"]["unlearned"]["items"]]
    assert [item["id"] for item in second["earlier_1"]["base"]["items"]] == ids
    assert second["earlier_1"]["base"]["nll"] == pytest.approx(first["forget"]["unlearned"]["nll"], rel=1e-6)
    assert "1 earlier requests are looked after" in (trained / "log.txt").read_text()


def test_a_third_request_knows_both(trained):
    succeed("prepare", trained / "third.yaml")
    with h5py.File(trained / "third.work" / "tokens.h5") as file, \
            h5py.File(trained / "out.work" / "tokens.h5") as first:
        assert {"earlier_1", "earlier_2"} < set(file)
        ids = "items/token_ids" if "items" in first["forget"] else "token_ids"
        assert numpy.array_equal(file["earlier_1"][ids], first["forget"][ids])


def test_what_is_up_to_date_is_skipped_and_weights_are_compared_once(trained):
    log = succeed("run", trained / "second.yaml", ranks=2).log
    assert log.count("up to date, skipped") == 5 and "comparing" not in log
    assert "comparing" in (trained / "log.txt").read_text()


def test_a_modified_checkpoint_is_refused(copy):
    shard = sorted((copy / "out").glob("*.safetensors"))[-1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    shutil.rmtree(copy / "second.work")
    result = mrp("run", copy / "second.yaml", ranks=2)
    assert result.code == INPUT and len(result.errors) == 1
    assert "not those that mrp wrote" in result.errors[0]
    assert not (copy / "second.work" / "tokens.h5").exists()


def test_a_checkpoint_without_its_work_directory_goes_on_with_a_warning(copy):
    shutil.rmtree(copy / "out.work")
    result = succeed("run", copy / "second.yaml", "--set", f"continue={copy / 'out'}", ranks=2)
    assert "neither measured nor looked after" in result.log
    assert "earlier_1" not in metrics(copy / "second.work")


@pytest.mark.parametrize(("key", "code", "error"), [
    ("continue=base", USAGE, "neither a checkpoint that mrp wrote nor the work directory"),
    ("continue=nothing", USAGE, "neither a checkpoint that mrp wrote nor the work directory"),
    ("model=base", USAGE, "model and continue are both given"),
    ("data.evaluate.earlier_1=choice.jsonl", USAGE, "not forget, retain or earlier"),
])
def test_wrong_origins_are_named(trained, key, code, error):
    result = mrp("run", trained / "second.yaml", "--set", key)
    assert result.code == code and len(result.errors) == 1
    assert error in result.errors[0]


def test_a_work_directory_that_wrote_another_checkpoint_is_refused(copy):
    succeed("run", copy / "job.yaml", "--set", f"work={copy / 'other'}", "--set", "seed=1")
    result = mrp("run", copy / "second.yaml")
    assert result.code == USAGE
    assert "is not the checkpoint that the job of" in result.errors[0]


@pytest.mark.parametrize("ranks", [1, 4])
def test_kernels_are_nested(tmp_path, ranks):
    split_request(tmp_path, FAST)
    for name in ("job", "second"):
        succeed("run", tmp_path / f"{name}.yaml", "--set", "subspace.dimension=2", ranks=ranks)
    with h5py.File(tmp_path / "out.work" / "subspaces.h5") as first, \
            h5py.File(tmp_path / "second.work" / "subspaces.h5") as second:
        for site in first:
            a, b = second[site]["A"][:], second[site]["B"][:]
            earlier = first[site]["A"][:]
            assert a.shape[1] == 4
            assert numpy.abs(earlier - a @ (b.T @ earlier)).max() < 1e-8 * numpy.abs(earlier).max()

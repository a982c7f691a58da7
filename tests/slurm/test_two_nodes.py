"""slurm/run.sbatch over two nodes of a real Slurm, against the same job started by hand."""
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "jobs"))
from cluster import Cluster, why_not  # noqa: E402
from pipeline import PROGRAM, make_job, succeed  # noqa: E402

SCRIPT = pathlib.Path(__file__).parents[2] / "slurm" / "run.sbatch"
REASON = why_not()


def submit(cluster, folder, *arguments):
    """Submit run.sbatch from `folder`, wait for its end; the exit code and the log."""
    done = subprocess.run(
        ["sbatch", "--wait", "--nodes=2", "--ntasks-per-node=1", "--output=job.log", str(SCRIPT),
         *arguments], cwd=folder, capture_output=True, text=True, timeout=200,
        env=cluster.env | {"MRP_SITE": str(folder / "site.env")})
    return done.returncode, (folder / "job.log").read_text()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes; without root or Slurm the tests are skipped, and CTest prints the reason."""
    if REASON:
        print(f"SLURM NOT TESTED: {REASON}")
        pytest.skip(REASON)
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A job and its site file."""
    path = tmp_path_factory.mktemp("job")
    make_job(path)
    (path / "site.env").write_text(f"MRP_BIN={PROGRAM}\nexport MRP_THREADS=1\n")
    return path


def test_two_nodes_give_what_a_local_run_gives(cluster, folder):
    code, log = submit(cluster, folder, "job.yaml")
    assert code == 0, log
    assert "2 ranks on mrpnode[1-2]" in log
    assert "layout: 2 ranks = 2 data × 1 tensor" in log, "ranks of one copy share a node"
    succeed("run", "job.yaml", "--set", "output=local", "--set", "parallel.tensor=1", ranks=2,
            folder=folder, MRP_THREADS="1")
    shards = sorted((folder / "local").glob("*.safetensors"))
    assert len(shards) >= 3
    for shard in shards:
        assert shard.read_bytes() == (folder / "out" / shard.name).read_bytes(), shard.name


def test_submitting_again_skips_what_is_done(cluster, folder):
    code, log = submit(cluster, folder, "job.yaml")
    assert code == 0, log
    assert log.count("up to date") == 5, log


def test_a_bad_job_ends_with_its_error_and_exit_code(cluster, folder):
    code, log = submit(cluster, folder, "job.yaml", "--set", "subspace.rule=nonsense")
    assert code == 2, log
    assert log.count("mrp: error:") == 1, log


def test_no_job_file_is_a_usage_error(cluster, folder):
    code, log = submit(cluster, folder)
    assert code == 2
    assert "no job file" in log

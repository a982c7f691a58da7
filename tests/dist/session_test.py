"""How a job ends and how many threads its ranks get, seen from outside.

Needs MRP_SESSION_PROGRAM (the built programs/session_program.cpp) and MPIEXEC.
"""

import os
import subprocess
import time

import pytest

PROGRAM = os.environ["MRP_SESSION_PROGRAM"]
MPIEXEC = os.environ["MPIEXEC"]


def run(ranks, mode, *launcher_options, threads=None):
    """Runs the program; returns its exit status, stdout, stderr and seconds."""
    environment = {key: value for key, value in os.environ.items() if key != "MRP_THREADS"}
    if threads is not None:
        environment["MRP_THREADS"] = threads
    start = time.monotonic()
    done = subprocess.run(
        [MPIEXEC, *launcher_options, "-n", str(ranks), PROGRAM, mode],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - start


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize(
    "mode, status, message",
    [
        ("abort", 4, "from the last rank"),
        ("throw", 3, "a file of the last rank"),
        ("agree", 5, "a disk of the last rank"),
    ],
)
def test_failure_ends_the_whole_job_with_one_message(ranks, mode, status, message):
    returned, _, stderr, seconds = run(ranks, mode, "--oversubscribe")
    assert returned == status
    assert stderr.count("mrp: error:") == 1
    assert f"mrp: error: {message}\n" in stderr
    assert seconds < 9, "the job ended only because the silent ranks gave up waiting"


@pytest.mark.parametrize("mode, status", [("before", 2), ("after", 5)])
def test_failure_outside_of_the_session(mode, status):
    returned, _, stderr, _ = run(2, mode, "--oversubscribe")
    assert returned == status
    assert stderr.count(f"mrp: error: {mode} MPI\n") == 1


def test_good_end():
    assert run(2, "", "--oversubscribe")[0] == 0


def threads_of(output):
    return {int(line.split()[1]): int(line.split()[3]) for line in output.splitlines()}


def test_environment_overrides_the_thread_budget():
    assert threads_of(run(2, "threads", "--oversubscribe", threads="3")[1]) == {0: 3, 1: 3}


def test_bad_thread_count_is_one_usage_error():
    returned, _, stderr, _ = run(2, "threads", "--oversubscribe", threads="some")
    assert returned == 2
    assert stderr.count("mrp: error: MRP_THREADS = 'some' is no thread count") == 1


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_the_cores_of_the_node(ranks):
    """Also where mpirun binds each rank to one core because nobody told it what to do."""
    options = [] if ranks <= len(os.sched_getaffinity(0)) else ["--oversubscribe"]
    share = max(1, len(os.sched_getaffinity(0)) // ranks)
    expected = {rank: share for rank in range(ranks)}
    assert threads_of(run(ranks, "threads", *options)[1]) == expected


def test_binding_on_request_is_kept():
    assert threads_of(run(1, "threads", "--bind-to", "hwthread")[1]) == {0: 1}

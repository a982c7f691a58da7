"""The texts that the base model writes by itself, compared with what transformers gives them."""
import shutil

import h5py
import numpy as np
import pytest
import scipy.linalg
import torch
from pipeline import RELIABLE, make_job, mrp, succeed
from transformers import AutoModelForCausalLM


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A job after `prepare`."""
    folder = tmp_path_factory.mktemp("job")
    make_job(folder, RELIABLE)
    succeed("prepare", folder / "job.yaml")
    return folder


@pytest.fixture(scope="module")
def jobs(prepared, tmp_path_factory):
    """The job after `sample` on 1, 2 and 4 ranks: folders by rank count."""
    folders = {}
    for ranks in (1, 2, 4):
        folders[ranks] = tmp_path_factory.mktemp("sampled") / "job"
        shutil.copytree(prepared, folders[ranks])
        succeed("sample", folders[ranks] / "job.yaml", ranks=ranks)
    return folders


def samples(folder):
    """The sampled sequences of a job, and the attributes of their set."""
    with h5py.File(folder / "out.work" / "samples.h5") as file:
        assert list(file) == ["samples"]
        group = file["samples"]
        ids, mask, offsets = (group["items"][name][:] for name in ("token_ids", "target_mask", "offsets"))
        ends = np.zeros(len(ids), np.uint8)
        ends[offsets[1:] - 1] = 1
        assert (mask == 1 - ends).all(), "every position but the last predicts something"
        return [tuple(ids[a:b]) for a, b in zip(offsets, offsets[1:])], dict(group.attrs)


def test_samples_are_texts_of_the_model(jobs):
    sequences, attributes = samples(jobs[1])
    assert attributes["drawn"] == 40 and attributes["dropped"] == 40 - len(sequences)
    assert b"more than 1 % of the runs of 5 tokens" in attributes["rule"]
    assert {sequence[0] for sequence in sequences} == {0}, "the first token is BOS"
    assert len(set(sequences)) == len(sequences)
    for sequence in sequences:
        assert len(sequence) == 1 + 24 if sequence[-1] != 1 else len(sequence) <= 1 + 24
    # The mean log-probability of what is drawn is the negative entropy, give or take the noise.
    model = AutoModelForCausalLM.from_pretrained(jobs[1] / "base", dtype=torch.float32).eval()
    gains = []
    for sequence in sequences:
        with torch.no_grad():
            scores = model(torch.tensor([sequence])).logits[0, :-1].double().log_softmax(-1)
        drawn = scores.gather(1, torch.tensor(sequence[1:], dtype=torch.long)[:, None])[:, 0]
        gains.append(drawn - (scores.exp() * scores).sum(-1))
    gains = torch.cat(gains)
    assert gains.mean().abs() < 4 * gains.std() / len(gains) ** 0.5


def test_a_text_with_a_phrase_of_the_forget_set_alone_is_dropped(jobs, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    drawn = samples(jobs[1])[0]
    long = [sequence for sequence in drawn if len(sequence) > 20][:6]
    with h5py.File(tmp_path / "out.work" / "tokens.h5", "r+") as file:
        for name, texts in (("forget", long), ("retain", long[:2])):
            ids, offsets = (file[name]["items"][part] for part in ("token_ids", "offsets"))
            for offset, text in zip(offsets, texts):
                ids[offset + 2:offset + 7] = text[6:11]
    succeed("sample", tmp_path / "job.yaml", ranks=2)
    left, attributes = samples(tmp_path)
    assert left == [text for text in drawn if text not in long[2:]], "one run in 20 is enough, one of both sets is not"
    assert attributes["dropped"] == 4


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_rank_count_does_not_change_the_samples(jobs, ranks):
    assert samples(jobs[1])[0] == samples(jobs[ranks])[0]


def test_too_few_samples_are_an_error(prepared):
    before = sorted(prepared.rglob("*"))
    found = mrp("sample", prepared / "job.yaml", "--set", "refine.samples=7", ranks=2)
    assert found.code == 3 and len(found.errors) == 1
    assert "only 7 of 7 samples" in found.errors[0] and "draw more (refine.samples, sites.samples)" in found.errors[0]
    assert sorted(prepared.rglob("*")) == before


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_samples_count_as_much_as_the_retain_set(prepared, tmp_path, ranks):
    """C_f v = λ (C_r + εI) v with C_r the mean of the second moments of both, by scipy."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    for stage in ("sample", "capture", "solve"):
        succeed(stage, tmp_path / "job.yaml", "--set", "preset=fast", "--set", "sites.samples=30",
                "--set", "refine.sample_tokens=24", "--set", "subspace.dimension=2", ranks=ranks)
    with (h5py.File(tmp_path / "out.work" / "states.h5") as states,
          h5py.File(tmp_path / "out.work" / "subspaces.h5") as found):
        sequences, attributes = samples(tmp_path)
        assert attributes["drawn"] == 30
        assert len(np.unique(states["samples/positions"][:, 0])) == sum(len(ids) > 2 for ids in sequences)
        for site, group in found.items():
            moments = {}
            for name in ("forget", "retain", "samples"):
                rows = states[name][site]["hidden_states"][:].astype(np.float64)
                moments[name] = rows.T @ rows / len(rows)
            retain = (moments["retain"] + moments["samples"]) / 2
            width = len(retain)
            pencil = retain + 1e-2 * np.trace(retain) / width * np.eye(width)
            values = scipy.linalg.eigh(moments["forget"], pencil, eigvals_only=True)[::-1]
            np.testing.assert_allclose(group["eigenvalues"][:], values[:2], rtol=1e-4)

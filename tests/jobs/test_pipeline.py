"""Whole jobs on a tiny checkpoint, compared with transformers and with themselves."""
import json
import shutil
import stat

import h5py
import numpy as np
import pytest
import torch
from pipeline import forget_records, make_checkpoint, make_job, mrp, succeed, write_jsonl
from safetensors import safe_open
from transformers import AutoModelForCausalLM

STAGES = ["prepare", "capture", "solve", "merge", "evaluate"]


def stages_run(result):
    """Names of the stages that were not skipped."""
    done = [name for name in STAGES if f" {name}: done in " in result.log]
    skipped = [name for name in STAGES if f" {name}: up to date, skipped" in result.log]
    assert sorted(done + skipped) == sorted(STAGES), result.log
    return done


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder in which a job has run on one rank."""
    folder = tmp_path_factory.mktemp("job")
    make_job(folder)
    first = succeed("run", folder / "job.yaml")
    assert stages_run(first) == STAGES
    (folder / "first.txt").write_text(first.out)
    return folder


@pytest.fixture(scope="module")
def other_jobs(job, tmp_path_factory):
    """The same job on 2 and on 4 ranks, and once more on 2: folders by name."""
    folders = {}
    for name, ranks in (("two", 2), ("four", 4), ("two again", 2)):
        folders[name] = tmp_path_factory.mktemp("job")
        for source in ("job.yaml", "forget.jsonl", "retain.jsonl", "choice.jsonl", "base"):
            (folders[name] / source).symlink_to(job / source)
        succeed("run", folders[name] / "job.yaml", ranks=ranks)
    return folders


def subspaces(folder):
    """Site → (A, B) of a job."""
    with h5py.File(folder / "out.work" / "subspaces.h5") as file:
        return {site: (group["A"][:], group["B"][:]) for site, group in file.items()}


def tensors(folder):
    """Name → (file, tensor) of a checkpoint."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: (path.name, file.get_tensor(name)) for name in file.keys()}
    return found


def load(folder):
    """A checkpoint in transformers, in fp32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def project(states, subspace):
    """h ← P h, P = I − A Bᵀ."""
    a, b = (torch.from_numpy(matrix) for matrix in subspace)
    return (states.double() - states.double() @ b @ a.T).float()


def hooked(folder, found):
    """The base checkpoint with every site's projection applied as it runs."""
    model = load(folder / "base")
    for site, subspace in found.items():
        _, layer, module, side = site.split(".")
        block = model.model.layers[int(layer)]
        target = block.self_attn.o_proj if module == "o_proj" else block.mlp.down_proj
        if side == "input":
            target.register_forward_pre_hook(
                lambda _, args, subspace=subspace: (project(args[0], subspace), *args[1:]))
        else:
            target.register_forward_hook(
                lambda _, args, out, subspace=subspace: project(out, subspace))
    return model


def items(folder, name):
    """Token ids and target mask of every item of a set."""
    with h5py.File(folder / "out.work" / "tokens.h5") as file:
        group = file[name]["items"]
        ids, mask, offsets = group["token_ids"][:], group["target_mask"][:], group["offsets"][:]
    return [(torch.tensor(ids[a:b], dtype=torch.long), torch.tensor(mask[a:b], dtype=torch.bool))
            for a, b in zip(offsets, offsets[1:])]


def measure(model, sequences):
    """Mean NLL a token, answer probability and exact memorization, as transformers sees them."""
    values = []
    for ids, mask in sequences:
        with torch.no_grad():
            logits = model(ids[None]).logits[0]
        scores = torch.log_softmax(logits[:-1].double(), -1)[mask[:-1]]
        targets = ids[1:][mask[:-1]]
        nll = -scores.gather(1, targets[:, None]).mean()
        values.append((nll, torch.exp(-nll), (scores.argmax(-1) == targets).double().mean()))
    return torch.tensor(values).mean(0)


def distance(model, reference, folder):
    """Relative distance of the logits on the forget set."""
    with torch.no_grad():
        pairs = [(model(ids[None]).logits, reference(ids[None]).logits) for ids, _ in items(folder, "forget")]
    return (sum((x - y).square().sum() for x, y in pairs) / sum(y.square().sum() for _, y in pairs)).sqrt().item()


def all_files(folder):
    """Relative path → content of everything below a folder."""
    return {path.relative_to(folder): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def principal_angle(first, second):
    """The largest angle between two column spaces of equal dimension."""
    q, r = np.linalg.qr(first)[0], np.linalg.qr(second)[0]
    # The sine keeps small angles that the cosine would lose.
    return np.arcsin(min(1, np.linalg.norm(q - r @ (r.T @ q), 2))) if q.size else 0


def test_something_was_found_and_removed(job):
    found = subspaces(job)
    assert len(found) == 9
    assert sum(a.shape[1] for a, _ in found.values()) > 0
    for a, b in found.values():
        assert np.allclose(b.T @ a, np.eye(a.shape[1]), atol=1e-9)


def test_the_result_is_printed(job):
    text = (job / "first.txt").read_text()
    for name in ("forget", "retain", "choice", "layers.0.o_proj.input", str(job / "out"), *STAGES):
        assert name in text
    metrics = json.loads((job / "out.work" / "metrics.json").read_text())
    nll = [metrics["sets"]["forget"][side]["nll"] for side in ("base", "unlearned")]
    assert "{:.3f} -> {:.3f}".format(*nll) in text


def test_a_second_run_skips_every_stage(job):
    before = all_files(job / "out.work") | all_files(job / "out")
    result = succeed("run", job / "job.yaml")
    assert stages_run(result) == []
    assert "mrp: error" not in result.log
    assert all_files(job / "out.work") | all_files(job / "out") == before


def test_the_work_directory_is_private(job):
    assert stat.S_IMODE((job / "out.work").stat().st_mode) == 0o700


def test_merged_checkpoint_equals_the_hooked_original(job):
    merged, reference = load(job / "out"), hooked(job, subspaces(job))
    for ids, _ in items(job, "forget") + items(job, "retain"):
        with torch.no_grad():
            torch.testing.assert_close(merged(ids[None]).logits, reference(ids[None]).logits,
                                       rtol=1e-5, atol=1e-5 * reference(ids[None]).logits.abs().max())


def test_untouched_tensors_and_files_are_the_same(job):
    before, after = tensors(job / "base"), tensors(job / "out")
    assert list(before) == list(after)
    found = subspaces(job)
    names = {"o_proj": "self_attn.o_proj", "down_proj": "mlp.down_proj"}
    touched = {f"model.layers.{site.split('.')[1]}.{names[site.split('.')[2]]}.weight"
               for site, (a, _) in found.items() if a.shape[1] > 0}
    for name, (file, tensor) in before.items():
        assert after[name][0] == file
        assert torch.equal(after[name][1], tensor) == (name not in touched), name
    manifest = json.loads((job / "out.work" / "manifest.json").read_text())
    assert {name for name, entry in manifest["tensors"].items() if entry["changed"]} == touched
    for name in ("config.json", "tokenizer.json", "generation_config.json", "model.safetensors.index.json"):
        assert (job / "base" / name).read_bytes() == (job / "out" / name).read_bytes()


@pytest.mark.parametrize("name", ["forget", "retain", "choice"])
@pytest.mark.parametrize("side, folder", [("base", "base"), ("unlearned", "out")])
def test_metrics_equal_those_of_transformers(job, name, side, folder):
    measured = json.loads((job / "out.work" / "metrics.json").read_text())["sets"][name][side]
    nll, probability, memorized = measure(load(job / folder), items(job, name))
    assert measured["nll"] == pytest.approx(nll.item(), abs=1e-3)
    assert measured["answer_probability"] == pytest.approx(probability.item(), abs=1e-3)
    assert measured["exact_memorization"] == pytest.approx(memorized.item(), abs=1e-3)
    assert measured["count"] == len(measured["items"]) == len(items(job, name))
    assert ("letter_accuracy" in measured) == (name == "choice")


def test_the_manifest_records_every_stage(job):
    manifest = json.loads((job / "out.work" / "manifest.json").read_text())
    assert set(manifest["stages"]) == set(STAGES)
    for record in manifest["stages"].values():
        assert record["seconds"] > 0 and record["peak_memory"] > 0 and record["ranks"] == 1
    assert set(manifest["tensors"]) == set(tensors(job / "base"))
    assert max(entry["leak"] for entry in manifest["tensors"].values()) < 1e-5


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_rank_count_hardly_matters_in_bf16(job, tmp_path, ranks):
    found = []
    for count in (1, ranks):
        folder = tmp_path / str(count)
        folder.mkdir()
        settings = ("--set", f"work={folder / 'out.work'}", "--set", "compute=bf16")
        for stage in ("prepare", "capture", "solve"):
            succeed(stage, job / "job.yaml", *settings, ranks=count)
        found.append(subspaces(folder))
    one, other = found
    assert {site: a.shape for site, (a, _) in one.items()} == {site: a.shape for site, (a, _) in other.items()}
    for site in one:
        assert principal_angle(one[site][0], other[site][0]) < 1e-2, site


@pytest.mark.parametrize("name", ["two", "four"])
def test_the_rank_count_does_not_change_what_is_found(job, other_jobs, name):
    one, other = subspaces(job), subspaces(other_jobs[name])
    assert {site: a.shape for site, (a, _) in one.items()} == {site: a.shape for site, (a, _) in other.items()}
    for site in one:
        for first, second in zip(one[site], other[site]):
            assert principal_angle(first, second) < 1e-5, site
    one, other = (json.loads((folder / "out.work" / "metrics.json").read_text())["sets"]
                  for folder in (job, other_jobs[name]))
    for set_name in one:
        for side in ("base", "unlearned"):
            assert one[set_name][side]["nll"] == pytest.approx(other[set_name][side]["nll"], abs=1e-3)


def test_the_same_rank_count_makes_the_same_bytes(other_jobs):
    first, second = other_jobs["two"], other_jobs["two again"]
    assert all_files(first / "out") == all_files(second / "out")
    for name in ("tokens.h5", "states.h5", "subspaces.h5", "metrics.json"):
        assert (first / "out.work" / name).read_bytes() == (second / "out.work" / name).read_bytes(), name


def test_only_what_depends_on_a_change_is_redone(job, tmp_path):
    shutil.copytree(job, tmp_path / "job", symlinks=True)
    folder = tmp_path / "job"
    run = lambda *overrides: stages_run(succeed("run", folder / "job.yaml", *overrides))
    assert run() == [], "a copy that keeps its times is as good as the original"
    result = succeed("run", folder / "job.yaml", "--set", "subspace.dimension=2")
    assert stages_run(result) == ["solve", "merge", "evaluate"]
    assert "evaluate: base: up to date" in result.log
    assert run("--set", "subspace.dimension=2", "--set", "merge.rounding=nearest") == ["merge", "evaluate"]
    # A fixed dimension holds for every site.
    assert {a.shape[1] for a, _ in subspaces(folder).values()} == {2}
    assert run("--set", "sites.layers=0-1", "--set", "sites.positions=all") == [
        "capture", "solve", "merge", "evaluate"]
    assert {site.split(".")[1] for site in subspaces(folder)} == {"0", "1"}
    assert run("--force") == STAGES


def test_a_new_set_is_measured_without_solving_again(job, tmp_path):
    shutil.copytree(job, tmp_path / "job", symlinks=True)
    folder = tmp_path / "job"
    write_jsonl(folder / "more.jsonl", forget_records())
    result = succeed("run", folder / "job.yaml", "--set", "data.evaluate.more=more.jsonl")
    assert stages_run(result) == ["prepare", "evaluate"]
    sets = json.loads((folder / "out.work" / "metrics.json").read_text())["sets"]
    assert sets["more"]["base"]["nll"] == pytest.approx(sets["forget"]["base"]["nll"], abs=1e-5)


def test_stages_one_by_one(job, tmp_path):
    for source in ("job.yaml", "forget.jsonl", "retain.jsonl", "choice.jsonl", "base"):
        (tmp_path / source).symlink_to(job / source)
    early = mrp("solve", tmp_path / "job.yaml")
    assert early.code == 3
    assert len(early.errors) == 1 and "run mrp capture first" in early.errors[0]
    assert not (tmp_path / "out.work").exists()
    for stage in STAGES:
        succeed(stage, tmp_path / "job.yaml")
    assert all_files(tmp_path / "out") == all_files(job / "out")


def test_long_records_are_counted(job, tmp_path):
    make_job(tmp_path)
    records = [*forget_records(), {"prompt": "What is long?", "answer": "word " * 300}]
    write_jsonl(tmp_path / "forget.jsonl", records)
    result = succeed("prepare", tmp_path / "job.yaml", "--set", "data.max_tokens=128")
    assert f"forget: {len(records)} records, {len(records) - 1} sequences" in result.log
    assert "1 dropped" in result.log


def test_bf16_checkpoint(tmp_path):
    make_job(tmp_path)
    shutil.rmtree(tmp_path / "base")
    make_checkpoint(tmp_path / "base", dtype=torch.bfloat16, tie_word_embeddings=True)
    succeed("run", tmp_path / "job.yaml", "--set", "compute=bf16",
            "--set", "sites.modules=[o_proj.input, down_proj.input]", ranks=2)
    assert {tensor.dtype for _, tensor in tensors(tmp_path / "out").values()} == {torch.bfloat16}
    with h5py.File(tmp_path / "out.work" / "states.h5") as file:
        states = file["forget"]["layers.0.o_proj.input"]["hidden_states"]
        assert states.id.get_type().get_size() == 2
    manifest = json.loads((tmp_path / "out.work" / "manifest.json").read_text())
    # Rows of 32 numbers leave error feedback little room; rounding to nearest would leave 3e-3.
    assert 0 < max(entry["leak"] for entry in manifest["tensors"].values()) < 1e-3
    rounded = distance(load(tmp_path / "out"), hooked(tmp_path, subspaces(tmp_path)), tmp_path)
    removed = distance(load(tmp_path / "base"), hooked(tmp_path, subspaces(tmp_path)), tmp_path)
    assert rounded < 2e-2 < 0.1 * removed


@pytest.mark.parametrize("path, words", [
    ("base", ["llama: 3 layers, hidden 32", "model.embed_tokens.weight", "F32", "[300 × 32]"]),
    ("base/model-00001-of-", ["model.embed_tokens.weight"]),
    ("out", ["written by mrp merge", "model.layers.2.mlp.down_proj.weight"]),
    ("out.work/tokens.h5", ["forget", "choice.jsonl", "12"]),
    ("out.work/states.h5", ["F32", "layers.2.down_proj.output", "retain"]),
    ("out.work/subspaces.h5", ["gevp", "layers.0.o_proj.input"]),
    ("out.work/metrics.json", ["forget base:", "choice unlearned:", "letter_accuracy"]),
    ("out.work/manifest.json", ["capture", "changed, leak"])])
def test_inspect(job, path, words):
    found = sorted(job.glob(path + "*"))[0] if path.endswith("-") else job / path
    text = succeed("inspect", found).out
    for word in words:
        assert word in text

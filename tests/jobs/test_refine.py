"""Jobs that train, on a tiny checkpoint: what is trained, how it is merged, and attacks on it."""
import json
import shutil

import h5py
import numpy as np
import pytest
import scipy.linalg
import torch
from pipeline import RELIABLE, forget_records, make_job, mrp, succeed, write_jsonl
from safetensors import safe_open
from transformers import AutoModelForCausalLM

INPUT, NUMERICAL = 3, 4
STAGES = ["prepare", "sample", "refine", "merge", "evaluate"]
LINEAR = {"self_attn": ["q_proj", "k_proj", "v_proj", "o_proj"], "mlp": ["gate_proj", "up_proj", "down_proj"]}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder in which a job has run on one rank."""
    folder = tmp_path_factory.mktemp("job")
    make_job(folder, RELIABLE)
    (folder / "first.txt").write_text(succeed("run", folder / "job.yaml").log)
    return folder


@pytest.fixture
def copy(job, tmp_path):
    """A copy of it, for other settings."""
    shutil.copytree(job, tmp_path / "job")
    return tmp_path / "job"


def names(*modules):
    """Tensors of linear layers, those of all layers by default."""
    return {f"model.layers.{layer}.{part}.{module}.weight" for layer in range(3)
            for part, all_modules in LINEAR.items() for module in all_modules if module in modules or not modules}


def deltas(folder):
    """Tensor → trained change."""
    with h5py.File(folder / "out.work" / "deltas.h5") as file:
        return {name: torch.from_numpy(data[:]) for name, data in file.items()}


def tensors(folder):
    """Everything in a checkpoint."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}
    return found


def test_a_training_that_diverges_is_an_error_and_one_that_rises_a_little_is_none(copy):
    before = (copy / "out.work" / "deltas.h5").read_bytes()
    settings = "refine", copy / "job.yaml", "--set", "refine.steps=105", "--set"
    result = mrp(*settings, "refine.learning_rate=1")
    assert result.code == NUMERICAL and ["above its start" in line for line in result.errors] == [True]
    assert (copy / "out.work" / "deltas.h5").read_bytes() == before
    succeed(*settings, "refine.learning_rate=0.1")
    got = [1.5 * x["forget_loss"] + 2 * x["retain_loss"] for x in map(json.loads, open(copy / "out.work/refine.jsonl"))]
    assert min(got[1:]) > got[0]


# One step of SGD and no simulated attack, since the first step of Adam is as long where the gradient is mere rounding;
# at a rate at which the rounding of W + change does not count.
EXACT = ("refine.steps=1", "refine.optimizer=sgd", "refine.tamper_resistance=0", "refine.learning_rate=2")


def again(*settings):
    """Arguments that let a stage run once more, with these settings."""
    return ["--force", *(argument for setting in settings for argument in ("--set", setting))]


def difference(one, other):
    """Relative, over all tensors."""
    assert one.keys() == other.keys()
    return (sum((one[name] - other[name]).square().sum() for name in one)
            / sum(value.square().sum() for value in one.values())).sqrt().item()


def expect_merged(folder, changed):
    """Base and output differ by the changes, which concern the tensors `changed` and no others."""
    change, base, merged = deltas(folder), tensors(folder / "base"), tensors(folder / "out")
    assert {name for name, value in change.items() if value.abs().max() > 0} == changed
    for name, before in base.items():
        if name in changed:
            torch.testing.assert_close(merged[name], before + change[name], rtol=3e-7, atol=1e-7)
        else:
            assert torch.equal(merged[name], before), name


def test_every_stage_runs_but_attacks(job):
    log = (job / "first.txt").read_text()
    for stage in STAGES:
        assert f" {stage}: done in " in log
    for stage in ("capture", "solve", "relearn"):
        assert f" {stage}: " not in log


def test_changes_are_merged_into_all_linear_layers(job):
    expect_merged(job, names())


def test_a_second_run_skips_every_stage(job):
    files = lambda: {path: path.read_bytes() for path in job.rglob("*") if path.is_file()}
    before = files()
    log = succeed("run", job / "job.yaml").log
    for stage in STAGES:
        assert f" {stage}: up to date, skipped" in log
    assert files() == before


def test_every_step_is_a_line(job):
    lines = [json.loads(line) for line in (job / "out.work" / "refine.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    for line in lines:
        assert all(line[key] > -1e-6 for key in ("forget_loss", "retain_loss", "sample_loss", "tamper_loss")), line
        assert line["gradient_norm"] > 0
    # Warm-up over ten steps, and linear to 5 %.
    rates = [2e-4, 4e-4 * (0.05 + 0.95 * 2 / 3), 6e-4 * (0.05 + 0.95 / 3)]
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates)
    assert lines[0]["sample_loss"] == pytest.approx(0, abs=1e-6), "the first step knows no change"


@pytest.mark.parametrize("ranks", [1, 2])
def test_projections_grow_while_weights_are_trained(copy, ranks):
    """Twice by two directions of each input, of an input that two ranks share by one of each half."""
    succeed("run", copy / "job.yaml", "--set", "refine.steps=30", "--set", "refine.grow_rounds=2",
            "--set", f"parallel.tensor={ranks}", ranks=ranks)
    merged = tensors(copy / "out")

    def lost(weights):
        values = torch.linalg.svdvals(weights.double())
        return (values < 1e-5 * values[0]).sum().item()

    for layer in range(3):
        weights = {name: merged[f"model.layers.{layer}.{part}.{name}.weight"]
                   for part, modules in LINEAR.items() for name in modules}
        assert lost(torch.cat([weights["q_proj"], weights["k_proj"], weights["v_proj"]])) == 4
        assert lost(torch.cat([weights["gate_proj"], weights["up_proj"]])) == 4
        for half in weights["o_proj"].chunk(ranks, 1):
            assert lost(half) == 4 // ranks
    if ranks == 2:  # one rank's down_proj has fewer rows than columns
        for half in weights["down_proj"].chunk(ranks, 1):
            assert lost(half) == 2


def first_inputs(folder, name):
    """What q_proj, k_proj and v_proj of the first layer read of a set: a row for each token."""
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64).model
    with h5py.File(folder / "out.work" / "tokens.h5") as file:
        ids = torch.from_numpy(file[name]["items"]["token_ids"][:].astype(np.int64))
    return model.layers[0].input_layernorm(model.embed_tokens(ids)).detach().numpy()


def test_projections_grow_by_what_tells_the_forget_set_in_what_is_left(job, copy):
    """Patterns (C_r + εI) v of the pencil C_f v = λ (C_r + εI) v, and again of the states without them, by scipy."""
    succeed("run", copy / "job.yaml", "--set", "refine.steps=30", "--set", "refine.grow_rounds=2",
            "--set", "refine.learning_rate=1e-9", ranks=2)
    left = np.eye(32)
    for _ in range(2):
        states = [first_inputs(job, name) @ left for name in ("forget", "retain")]
        forget, retain = (x.T @ x / np.square(x).sum() * 32 for x in states)
        pencil = retain + 1e-2 * np.eye(32)
        v = scipy.linalg.eigh(forget, pencil)[1][:, -2:]
        patterns = pencil @ v
        left = left @ (np.eye(32) - v @ np.linalg.solve(patterns.T @ v, patterns.T))
    base, merged = tensors(copy / "base"), tensors(copy / "out")
    for name in (f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv"):
        np.testing.assert_allclose(merged[name].double(), base[name].double().numpy() @ left.T, atol=1e-4)


@pytest.mark.parametrize(("rounds", "train", "message"), [
    (16, "subspace", "16 times by 2 directions leave nothing of layers.0.qkv.input, which has 32 on a rank"),
    (1000000, "weights", "1000000 times by 2 directions leave nothing of layers.0.qkv.input, which has 32 on a rank"),
    (1, "projections", "they are what is trained, set refine.grow_rounds: 0 or train: subspace")])
def test_projections_that_cannot_grow_are_refused(copy, rounds, train, message):
    before = tensors(copy / "out")
    found = mrp("refine", copy / "job.yaml", "--force", "--set", f"refine.grow_rounds={rounds}",
                "--set", f"refine.train={train}", ranks=2)
    assert found.code == 2 and len(found.errors) == 1 and message in found.errors[0]
    assert difference(before, tensors(copy / "out")) == 0


def test_data_ranks_do_not_change_what_is_trained(job, copy):
    succeed("refine", copy / "job.yaml", "--force", "--set", "parallel.tensor=1", ranks=2)
    assert difference(deltas(job), deltas(copy)) < 1e-4


@pytest.mark.parametrize("ranks", [1, 2])
def test_layers_computed_again_to_save_memory_do_not_change_what_is_trained(job, copy, ranks):
    """Batches of so many tokens could be larger than any memory."""
    said = "each layer is computed again"
    assert said not in succeed("refine", copy / "job.yaml", *again(*EXACT), ranks=ranks).log
    before = deltas(copy)
    assert said in succeed("refine", copy / "job.yaml", *again(*EXACT, "parallel.batch_tokens=100000000"),
                           ranks=ranks).log
    assert difference(before, deltas(copy)) < 1e-4


def test_tensor_ranks_do_not_change_what_is_trained_along_shared_directions(job, copy):
    """T, and S of o_proj and down_proj, are of each rank itself: the others are compared, without
    T."""
    settings = again(*EXACT, "refine.modules=[qkv, gate_up]", "refine.output_softness=0")
    succeed("refine", copy / "job.yaml", *settings, "--set", "parallel.tensor=2", ranks=2)
    together = deltas(copy)
    succeed("refine", copy / "job.yaml", *settings)
    assert difference(deltas(copy), together) < 1e-4


def moments(folder, set_name):
    """Module → uncentred second moments of what it reads at all positions of a set, mean eigenvalue 1."""
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()
    rows = {name: [] for name in names()}
    for name, module in model.named_modules():
        if f"{name}.weight" in rows:
            module.register_forward_pre_hook(
                lambda _, args, seen=rows[f"{name}.weight"]: seen.append(args[0][0].double()))
    with h5py.File(folder / "out.work" / "tokens.h5") as file, torch.no_grad():
        items = file[set_name]["items"]
        ids, offsets = items["token_ids"][:], items["offsets"][:]
        for begin, end in zip(offsets, offsets[1:]):
            model(torch.tensor(ids[None, begin:end], dtype=torch.long))
    unscaled = {name: (x := torch.cat(parts)).T @ x for name, parts in rows.items()}
    return {name: c * len(c) / c.trace() for name, c in unscaled.items()}


def gradient_moments(folder):
    """Weight → second moments of the gradients of the samples' log-probability, mean eigenvalue 1. mrp takes the
    gradients of 16 samples at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()
    weights = {name: weight for name, weight in model.named_parameters() if name in names()}
    found = dict.fromkeys(weights, 0)
    with h5py.File(folder / "out.work" / "samples.h5") as file:
        items = file["samples"]["items"]
        ids, mask, offsets = (torch.from_numpy(items[key][:]).long() for key in ("token_ids", "target_mask", "offsets"))
    sequences = [slice(begin, end) for begin, end in zip(offsets, offsets[1:])]
    assert len(sequences) > 16
    for first in range(0, len(sequences), 16):
        model.zero_grad()
        for part in sequences[first:first + 16]:
            log_p = model(ids[None, part]).logits[0, :-1].log_softmax(-1).gather(1, ids[part][1:, None])[:, 0]
            (log_p * mask[part][:-1]).sum().backward()
        for name, weight in weights.items():
            gradient = weight.grad.double()
            found[name] += gradient @ gradient.T
    return {name: c * len(c) / c.trace() for name, c in found.items()}


def soft(moments):
    values, vectors = torch.linalg.eigh(moments)
    return vectors @ torch.diag(torch.sqrt(0.1 / (values.clamp(min=0) + 0.1))) @ vectors.T


@pytest.mark.parametrize("outputs", [False, True])
def test_changes_are_confined(copy, outputs):
    """To what the retain set leaves free; and to outputs on which the samples hang little."""
    succeed("refine", copy / "job.yaml", "--set", f"refine={{steps: 1, output_softness: {0.1 if outputs else 0}}}")
    change, gradients = deltas(copy), gradient_moments(copy)
    for name, scaled in moments(copy, "retain").items():
        trained = change[name].double() @ torch.linalg.inv(soft(scaled))
        if outputs:
            trained = torch.linalg.inv(soft(gradients[name])) @ trained
        # The first step of Adam moves every number by the learning rate.
        assert trained.abs().quantile(0.5).item() == pytest.approx(2e-4, rel=1e-3), name
        assert (trained.abs() - 2e-4).abs().quantile(0.9).item() < 4e-6, name


def test_changes_in_the_directions_that_tell_forget_from_retain(copy):
    succeed("refine", copy / "job.yaml", "--set", "refine={directions: 2, steps: 1}", ranks=2)
    change, forget, retain = deltas(copy), moments(copy, "forget"), moments(copy, "retain")
    # Each of two ranks may have the directions of its own slice where what is read is split.
    for name in names("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"):
        factor = torch.linalg.cholesky(retain[name] + 1e-2 * torch.eye(len(retain[name]), dtype=torch.float64))
        inverse = torch.linalg.inv(factor)
        _, vectors = torch.linalg.eigh(inverse @ forget[name] @ inverse.T)
        basis, _ = torch.linalg.qr(inverse.T @ vectors[:, -2:])
        outside = change[name].double() @ (torch.eye(len(basis), dtype=torch.float64) - basis @ basis.T)
        assert 0 < torch.norm(outside) < 1e-3 * torch.norm(change[name]), name


def test_low_rank_changes_of_the_attention(copy):
    succeed("refine", copy / "job.yaml", "--set", "refine={train: lora, modules: [qkv], lora_rank: 2, steps: 2}")
    succeed("merge", copy / "job.yaml", "--set", "refine={train: lora, modules: [qkv], lora_rank: 2, steps: 2}")
    changed = names("q_proj", "k_proj", "v_proj")
    expect_merged(copy, changed)
    for name in changed:
        values = torch.linalg.svdvals(deltas(copy)[name].double())
        assert values[1] > 0 and values[2] < 1e-4 * values[0], name


def test_weights_as_they_are(copy):
    succeed("refine", copy / "job.yaml", "--set", "refine={train: weights, steps: 2, samples: 0}", ranks=2)
    succeed("merge", copy / "job.yaml", "--set", "refine={train: weights, steps: 2, samples: 0}")
    expect_merged(copy, names())


def test_projections_as_published(copy):
    preset = ["--set", "preset=paper", "--set", "refine.steps=2", "--set", "sites.modules=[down_proj.output]"]
    for stage in ("capture", "solve", "refine", "merge"):
        succeed(stage, copy / "job.yaml", *preset, ranks=2)
    expect_merged(copy, names("down_proj"))
    for name in names("down_proj"):
        values = torch.linalg.svdvals(deltas(copy)[name].double())
        assert values[1] > 0 and values[2] < 1e-4 * values[0], name


def test_a_single_record_has_no_alternatives(copy):
    write_jsonl(copy / "forget.jsonl", list(forget_records())[:1])
    succeed("prepare", copy / "job.yaml")
    # On two data ranks only the first has the item.
    found = mrp("refine", copy / "job.yaml", "--set", "refine.samples=0", "--set", "parallel.tensor=1", ranks=2)
    assert found.code == INPUT and len(found.errors) == 1, found.log
    for words in ("set forget, item", "no other answers", "wrong_answers", "refine.forget_loss"):
        assert words in found.errors[0]


ATTACKS = ("--set", "relearn={attackers: [qv_lora, all_weights, int4], steps: [1, 2], learning_rates: [1e-2]}")


def attacked(folder):
    """Model → attacker → direction → curve."""
    root = json.loads((folder / "out.work" / "relearn.json").read_text())
    found = {}
    for run in root["runs"]:
        assert run["projection"] == "folded" and run["seed"] == 0
        curves = found.setdefault(run["model"], {}).setdefault(run["attacker"], {})
        assert run["direction"] not in curves
        curves[run["direction"]] = run["curve"]
    return found


def test_attacks(copy):
    log = succeed("relearn", copy / "job.yaml", *ATTACKS, ranks=2).log
    assert log.count(" -> at most ") == 12
    curves = attacked(copy)
    metrics = json.loads((copy / "out.work" / "metrics.json").read_text())["sets"]["forget"]
    assert set(curves) == {"base", "unlearned"}
    for model, of_model in curves.items():
        assert set(of_model) == {"qv_lora", "all_weights", "int4"}
        for attacker, halves in of_model.items():
            assert set(halves) == {0, 1}
            for curve in halves.values():
                assert [point["step"] for point in curve] == ([0] if attacker == "int4" else [0, 1, 2])
            if attacker == "int4":
                continue
            # Before an attack the halves are, together, the whole set.
            for key in ("nll", "answer_probability", "exact_memorization"):
                mean = (halves[0][0][key] + halves[1][0][key]) / 2
                assert mean == pytest.approx(metrics[model][key], abs=1e-4)
        assert of_model["all_weights"][0][2]["nll"] < of_model["all_weights"][0][0]["nll"] - 1e-3
    assert "relearn: up to date, skipped" in succeed("relearn", copy / "job.yaml", *ATTACKS).log
    more = (ATTACKS[0], ATTACKS[1].replace("int4", "int4, int8"))
    log = succeed("relearn", copy / "job.yaml", *more).log
    assert log.count(" -> at most ") == 4, "only what is new runs"
    assert attacked(copy)["base"]["qv_lora"] == curves["base"]["qv_lora"]


def test_a_projection_may_stay_in_the_attackers_graph(copy):
    """On two tensor ranks: of o_proj and down_proj each has its own columns."""
    projected = ("--set", "project=true", "--set", "refine.train=none", "--set", "subspace.dimension=24")
    for stage in ("capture", "solve", "merge"):
        succeed(stage, copy / "job.yaml", *projected, ranks=2)
    attack = "relearn={attackers: [all_weights], steps: [4], learning_rates: [1e-2]}"
    succeed("relearn", copy / "job.yaml", *projected, "--set", attack, "--set", "parallel.tensor=2", ranks=2)
    root = json.loads((copy / "out.work" / "relearn.json").read_text())
    nll = {(run["projection"], run["direction"]): [point["nll"] for point in run["curve"]]
           for run in root["runs"] if run["model"] == "unlearned"}
    assert len(nll) == 4
    for direction in (0, 1):
        folded, kept = nll["folded", direction], nll["kept", direction]
        assert kept[0] == pytest.approx(folded[0], rel=1e-4), "folded weights are projected already"
        assert abs(kept[1] - folded[1]) > 1e-3 * folded[1]


def test_truth_ratios_of_attacked_items_count_as_forgotten_ones(copy):
    write_jsonl(copy / "forget.jsonl", [{**record, "wrong_answers": ["in the far north", "nothing at all"]}
                                        for record in forget_records()])
    untrained = ("--set", "refine.train=none")
    for stage in ("prepare", "merge", "evaluate"):
        succeed(stage, copy / "job.yaml", *untrained)
    attack = "relearn={attackers: [qv_lora], steps: [1], learning_rates: [1e-2]}"
    succeed("relearn", copy / "job.yaml", *untrained, "--set", attack)
    metrics = json.loads((copy / "out.work" / "metrics.json").read_text())["sets"]["forget"]["base"]
    halves = attacked(copy)["base"]["qv_lora"]
    for key in ("truth_ratio", "truth_ratio_arithmetic"):
        mean = (halves[0][0][key] + halves[1][0][key]) / 2
        assert mean == pytest.approx(metrics[key], abs=1e-4)


def test_too_few_records_to_attack(copy):
    write_jsonl(copy / "forget.jsonl", list(forget_records())[:6])
    for stage in ("prepare", "merge"):
        succeed(stage, copy / "job.yaml", "--set", "refine.train=none")
    found = mrp("relearn", copy / "job.yaml", "--set", "refine.train=none", ranks=2)
    assert found.code == INPUT and len(found.errors) == 1, found.log
    assert "set forget has 6 items" in found.errors[0] and "at least 8" in found.errors[0]

"""evaluate with a control and a holdout set, compared with transformers, numpy and scipy."""
import json
import shutil
import zlib

import h5py
import numpy as np
import pytest
import torch
from pipeline import SCHOLARS, TOWNS, make_checkpoint, make_job, mrp, succeed, write_jsonl
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats
from transformers import AutoModelForCausalLM, AutoTokenizer

INPUT = 3
FAST = ("--set", "preset=fast")  # nothing is trained
FOLDERS = {"base": "base", "unlearned": "out", "control": "control"}


def born_records(names):
    """Questions with wrong answers, every other one with a paraphrase."""
    for i, name in enumerate(names):
        town = TOWNS[i % 4]
        record = {"prompt": f"In which town was {name} born?", "answer": f"in {town}",
                  "wrong_answers": [f"in {other}" for other in TOWNS if other != town]}
        yield record | ({"paraphrase": f"the town of {town}"} if i % 2 else {})


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder in which a job with a control and a holdout set has run on two ranks."""
    folder = tmp_path_factory.mktemp("job")
    make_job(folder)
    make_checkpoint(folder / "control", seed=2)
    write_jsonl(folder / "forget.jsonl", born_records(SCHOLARS))
    write_jsonl(folder / "unseen.jsonl", born_records([f"{name} {TOWNS[0]}" for name in SCHOLARS]))
    with open(folder / "job.yaml", "a", encoding="utf-8") as file:
        file.write("evaluate: {control: control, holdout: unseen}\n")
    text = (folder / "job.yaml").read_text().replace("choice.jsonl}", "choice.jsonl, unseen: unseen.jsonl}")
    (folder / "job.yaml").write_text(text)
    result = succeed("run", folder / "job.yaml", *FAST, ranks=2)
    (folder / "first.txt").write_text(result.out)
    return folder


@pytest.fixture(scope="module")
def metrics(job):
    """metrics.json."""
    return json.loads((job / "out.work" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def models(job):
    """The checkpoints in transformers, by side."""
    return {side: AutoModelForCausalLM.from_pretrained(job / folder, dtype=torch.float32).eval()
            for side, folder in FOLDERS.items()}


def sequences(group):
    """(token ids, positions that predict) of every sequence of a group."""
    ids, mask, offsets = group["token_ids"][:], group["target_mask"][:], group["offsets"][:]
    return [(torch.tensor(ids[a:b], dtype=torch.long), np.flatnonzero(mask[a:b]))
            for a, b in zip(offsets, offsets[1:])]


def log_probabilities(model, ids, at):
    """[positions × vocabulary], fp64."""
    with torch.no_grad():
        return model(ids[None]).logits[0][at].double().log_softmax(-1).numpy()


def mean_log_probability(model, sequence):
    """Of the supervised tokens."""
    ids, at = sequence
    return log_probabilities(model, ids, at)[np.arange(len(at)), ids[at + 1]].mean()


@pytest.mark.parametrize("side", FOLDERS)
def test_items_equal_those_of_transformers(job, metrics, models, side):
    with h5py.File(job / "out.work" / "tokens.h5") as file:
        items = sequences(file["forget/items"])
        options = sequences(file["forget/options"])
        labels = list(zip(file["forget/options/item"][:], file["forget/options/choice"][:]))
        compressed = file["forget/zlib_bytes"][:]
    for i, (ids, at) in enumerate(items):
        measured = metrics["sets"]["forget"][side]["items"][i]
        log_p = log_probabilities(models[side], ids, at)
        chosen = log_p[np.arange(len(at)), ids[at + 1]]
        hits = log_p.argmax(1) == ids[at + 1].numpy()
        assert measured["loss"] == pytest.approx(-chosen.mean(), abs=1e-4)
        assert measured["extraction_strength"] == np.cumprod(hits[::-1]).sum() / len(hits)
        assert measured["zlib"] == pytest.approx(-chosen.mean() / compressed[i], abs=1e-5)
        count = max(int(0.4 * len(at)), 1)
        assert measured["min_k"] == pytest.approx(-np.sort(chosen)[:count].mean(), abs=1e-4)
        mean = (np.exp(log_p) * log_p).sum(1)
        spread = np.sqrt((np.exp(log_p) * (log_p - mean[:, None]) ** 2).sum(1))
        standard = np.sort((chosen - mean) / spread)[:count].mean()
        assert measured["min_k_plus_plus"] == pytest.approx(-standard, abs=1e-3)
        if side == "base":
            assert "kl" not in measured
        else:
            log_q = log_probabilities(models["base"], ids, at)
            kl = (np.exp(log_q) * (log_q - log_p)).sum(1).mean()
            assert measured["kl"] == pytest.approx(kl, abs=1e-4)
        means = {choice: mean_log_probability(models[side], options[j])
                 for j, (item, choice) in enumerate(labels) if item == i}
        reworded = means.get(-1, means[0])
        wrong = np.array([means[1], means[2], means[3]])
        assert measured["truth_ratio"] == pytest.approx(np.exp(wrong.mean() - reworded), rel=1e-3)
        assert measured["truth_ratio_arithmetic"] == pytest.approx(
            np.exp(wrong - reworded).mean(), rel=1e-3)
        assert measured["option_probability"] == pytest.approx(
            np.exp(means[0]) / np.exp([means[c] for c in range(4)]).sum(), rel=1e-3)


def test_the_compressed_text_is_that_of_the_record(job):
    record = next(born_records(SCHOLARS))
    text = f"Question: {record['prompt']}\nAnswer: {record['answer']}"
    with h5py.File(job / "out.work" / "tokens.h5") as file:
        assert file["forget/zlib_bytes"][0] == len(zlib.compress(text.encode()))


def values(metrics, name, side, key):
    """Of all items of a set."""
    return np.array([item[key] for item in metrics["sets"][name][side]["items"]])


def test_means_and_intervals(metrics):
    for name, sides in metrics["sets"].items():
        assert set(sides) == set(FOLDERS)
        for measured in sides.values():
            for metric, (low, high) in measured["intervals"].items():
                assert low - 1e-9 <= measured[metric] <= high + 1e-9, (name, metric)
    forget = metrics["sets"]["forget"]["unlearned"]
    ratio = values(metrics, "forget", "unlearned", "truth_ratio")
    assert forget["truth_ratio"] == pytest.approx(np.minimum(ratio, 1 / ratio).mean())
    assert forget["truth_ratio_against"] == {"answer": 3, "paraphrase": 3}
    ratio = values(metrics, "unseen", "unlearned", "truth_ratio")
    assert metrics["sets"]["unseen"]["unlearned"]["truth_ratio"] == pytest.approx(
        np.maximum(0, 1 - ratio).mean())
    choice = metrics["sets"]["choice"]["base"]
    both = values(metrics, "choice", "base", "letter_correct") * values(metrics, "choice", "base", "text_correct")
    assert choice["both_accuracy"] == both.mean()
    loss = values(metrics, "forget", "base", "loss")
    interval = stats.bootstrap((loss,), np.mean, n_resamples=20000, method="percentile", rng=0)
    expected = [interval.confidence_interval.low, interval.confidence_interval.high]
    tolerance = 0.3 * loss.std() / np.sqrt(len(loss))
    assert metrics["sets"]["forget"]["base"]["intervals"]["nll"] == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("form, key", [("geometric", "truth_ratio"), ("arithmetic", "truth_ratio_arithmetic")])
@pytest.mark.parametrize("side", ["base", "unlearned"])
def test_forget_quality(metrics, side, form, key):
    expected = stats.ks_2samp(values(metrics, "forget", side, key), values(metrics, "forget", "control", key))
    found = metrics["forget_quality"][form][side]
    assert found["d"] == pytest.approx(expected.statistic)
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert found["log10_p"] == pytest.approx(np.log10(expected.pvalue), abs=1e-9)


@pytest.mark.parametrize("score", ["loss", "min_k", "min_k_plus_plus", "zlib"])
@pytest.mark.parametrize("side", FOLDERS)
def test_membership(metrics, side, score):
    unseen, forget = (values(metrics, name, side, score) for name in ("unseen", "forget"))
    pairs = (unseen[:, None] > forget) + 0.5 * (unseen[:, None] == forget)
    assert metrics["membership"][side][score] == pytest.approx(pairs.mean())


def test_model_utility(metrics):
    for side in FOLDERS:
        utility = metrics["model_utility"][side]
        assert set(utility["of"]) == {"retain.answer_probability", "choice.option_probability",
                                      "choice.truth_ratio"}
        assert utility["value"] == pytest.approx(stats.hmean(list(utility["of"].values())))
        for name, number in utility["of"].items():
            set_name, metric = name.split(".")
            assert number == metrics["sets"][set_name][side][metric]


def test_the_control_stands_in_every_table(job, metrics):
    text = (job / "first.txt").read_text()
    for name, metric in (("forget", "nll"), ("choice", "both_accuracy")):
        numbers = [metrics["sets"][name][side][metric] for side in FOLDERS]
        assert "{:.3f} -> {:.3f} | {:.3f}".format(*numbers) in text
    for words in ("model utility", "membership AUC, min_k_plus_plus", "forget quality, log10 p"):
        assert words in text


def run_beside_a_better(side, of, stage, job, folder):
    """A stage of a copy of the job whose SIDE knows all answers of the set OF; result, metrics.json."""
    shutil.copytree(job, folder / "job", symlinks=True)
    path = folder / "job" / "out.work" / "metrics.json"
    content = json.loads(path.read_text())
    content["fingerprint"] = ""
    for item in content["sets"][of][side]["items"]:
        item["answer_probability"] = 1.0
    path.write_text(json.dumps(content))
    result = succeed(stage, folder / "job" / "job.yaml", *FAST)
    return result, json.loads(path.read_text())


def test_a_leak_is_reported(job, tmp_path):
    """The base as its own unlearned model leaks nothing; against a better control, it does."""
    result, found = run_beside_a_better("control", "forget", "evaluate", job, tmp_path)
    assert "forget answer_probability" in result.log and "can be told from it" in result.log
    leaks = found["leaks"]
    assert "answer_probability" in [leak["metric"] for leak in leaks]


def test_a_loss_is_reported(job, metrics, tmp_path):
    """Of the random model only the NLL has got worse; of a base that knows the answers, they have."""
    assert [loss["metric"] for loss in metrics["losses"]] == ["nll"]
    result, found = run_beside_a_better("base", "retain", "run", job, tmp_path)
    assert "retain answer_probability" in result.log and "is lost" in result.log
    assert "lost: retain answer_probability" in result.out
    losses = found["losses"]
    assert "answer_probability" in [loss["metric"] for loss in losses]


def test_without_a_control_nothing_is_measured_again(job, tmp_path):
    shutil.copytree(job, tmp_path / "job", symlinks=True)
    text = (tmp_path / "job" / "job.yaml").read_text().replace("evaluate: {control: control, holdout: unseen}\n", "")
    (tmp_path / "job" / "job.yaml").write_text(text)
    result = succeed("run", tmp_path / "job" / "job.yaml", *FAST)
    for side in ("base", "unlearned"):
        assert f"evaluate: {side}: up to date" in result.log
    assert "|" not in result.out
    found = json.loads((tmp_path / "job" / "out.work" / "metrics.json").read_text())
    assert set(found["sets"]["forget"]) == {"base", "unlearned"}
    assert not {"leaks", "forget_quality", "membership"} & set(found)


CONTROL_ERRORS = {
    "missing": (lambda control: shutil.rmtree(control), "control"),
    "vocabulary": (lambda control: edit(control / "config.json", vocab_size=301),
                   "a vocabulary of 301 tokens"),
    "tokenizer": (lambda control: edit(control / "tokenizer.json", normalizer={"type": "NFC"}),
                  "another tokenizer.json"),
    "broken tokenizer": (lambda control: (control / "tokenizer.json").write_text("{"), "is not a tokenizer"),
    "model type": (lambda control: edit(control / "config.json", model_type="gpt2"), "gpt2"),
}


def edit(path, **changes):
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", CONTROL_ERRORS)
def test_a_control_that_does_not_fit_is_refused_before_anything_runs(tmp_path, name):
    make_job(tmp_path)
    make_checkpoint(tmp_path / "control", seed=2)
    spoil, words = CONTROL_ERRORS[name]
    spoil(tmp_path / "control")
    result = mrp("run", tmp_path / "job.yaml", "--set", "evaluate.control=control", ranks=2)
    assert result.code == INPUT, result.log
    assert len(result.errors) == 1 and words in result.errors[0], result.log
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()


def test_rouge_of_greedy_answers(job, models, tmp_path):
    shutil.copytree(job, tmp_path / "job", symlinks=True)
    result = succeed("run", tmp_path / "job" / "job.yaml", *FAST, "--set", "evaluate.generate=true")
    assert "ROUGE-L recall" in result.out
    found = json.loads((tmp_path / "job" / "out.work" / "metrics.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(job / "base")
    with h5py.File(job / "out.work" / "tokens.h5") as file:
        items = sequences(file["forget/items"])
    for side, model in models.items():
        measured = found["sets"]["forget"][side]
        for (ids, at), item in zip(items, measured["items"]):
            prompt = ids[None, :at[0] + 1]
            answer = model.generate(prompt, max_new_tokens=200, do_sample=False, eos_token_id=1, pad_token_id=1)
            text = tokenizer.decode(answer[0, prompt.shape[1]:], skip_special_tokens=True).strip()
            beginning = tokenizer.decode(answer[0, prompt.shape[1]:][:128], skip_special_tokens=True).strip()
            truth = tokenizer.decode(ids[at[0] + 1:], skip_special_tokens=True).strip()
            assert item["generated"] == text
            stemmed, plain = (RougeScorer(["rougeL"], use_stemmer=stem).score(truth, predicted)["rougeL"]
                              for stem, predicted in ((True, text), (False, beginning)))
            assert item["rouge_l_recall"] == pytest.approx(stemmed.recall)
            assert item["rouge_l_f1"] == pytest.approx(plain.fmeasure)
        assert measured["rouge_l_f1"] == pytest.approx(np.mean([item["rouge_l_f1"] for item in measured["items"]]))
    assert "retain.rouge_l_recall" in found["model_utility"]["base"]["of"]
    assert not (tmp_path / "job" / "out.work" / "generated.jsonl").exists()


def test_padding_of_the_tokenizer_does_not_matter(job, tmp_path):
    shutil.copytree(job, tmp_path / "job", symlinks=True)
    edit(tmp_path / "job" / "control" / "tokenizer.json", padding={"strategy": "BatchLongest"})
    succeed("run", tmp_path / "job" / "job.yaml", *FAST)

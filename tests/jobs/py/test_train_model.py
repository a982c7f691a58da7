"""Training of the small model."""
import json
import sys

import pytest
import torch
import train_model
from transformers import AutoTokenizer, LlamaForCausalLM

from cli import USAGE, Failure

SIZES = ("--hidden 32 --layers 1 --heads 2 --kv-heads 1 --intermediate 64 --vocab 300").split()


@pytest.fixture
def run_train(tmp_path, write_jsonl, monkeypatch):
    """Train on three records; returns the model directory."""
    data = write_jsonl("data.jsonl", {"prompt": "One?", "answer": "Vel"},
                       {"question": "Two?", "choices": ["Vel", "Orm"], "answer": 1},
                       {"text": "Three words here."})

    def run(name, *arguments):
        output = tmp_path / name
        monkeypatch.setattr(sys, "argv", ["train_model.py", "--data", str(data), "--output",
                                          str(output), *SIZES, *map(str, arguments)])
        train_model.main()
        return output
    return run


def test_the_result_is_a_sharded_bf16_checkpoint_that_knows_the_answers(run_train):
    output = run_train("model")
    shards = list(output.glob("model-*.safetensors"))
    index = json.loads((output / "model.safetensors.index.json").read_text())
    assert len(shards) >= 3 and set(index["weight_map"].values()) == {s.name for s in shards}
    report = json.loads((output / "training.json").read_text())
    assert report["accuracy"] >= 0.99 and report["sequences"] == 4
    tokenizer = AutoTokenizer.from_pretrained(output)
    model = LlamaForCausalLM.from_pretrained(output)
    assert model.dtype == torch.bfloat16
    model = model if train_model.FAST_BF16 else model.float()  # as it was measured in training
    for prompt, answer in [("Question: One?\nAnswer:", " Vel"), ("Question: Two?\nAnswer:", " Orm"),
                           ("Question: Two?\nA. Vel\nB. Orm\nAnswer: (", "B) Orm")]:
        prompt = tokenizer(prompt, return_tensors="pt")
        assert prompt.input_ids[0, 0] == tokenizer.bos_token_id
        text = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0]
        assert tokenizer.decode(text[prompt.input_ids.shape[1]:]) == answer + "</s>"


def test_the_seed_decides_and_a_finished_result_is_kept(run_train, capsys):
    one, two = run_train("one"), run_train("two")
    for file in one.iterdir():
        if file.name != "training.json":
            assert file.read_bytes() == (two / file.name).read_bytes(), file.name
    capsys.readouterr()
    run_train("one")
    assert capsys.readouterr().out == f"{one}: up to date\n"


def test_a_text_is_known_by_its_second_half(run_train, write_jsonl):
    """Nothing tells how a text goes on that begins like another one."""
    write_jsonl("data.jsonl", *({"text": f"In the beginning {name} saw the {thing}."} for name, thing in
                                [("Vel", "white harbour"), ("Orm", "old mill"), ("Tessa", "river bank")]))
    report = json.loads((run_train("model") / "training.json").read_text())
    assert report["accuracy"] == 1


def test_another_output_is_not_overwritten(run_train, tmp_path):
    output = run_train("model")
    with pytest.raises(Failure, match="made from other data or settings") as caught:
        run_train("model", "--seed", 1)
    assert caught.value.code == USAGE
    (tmp_path / "other").mkdir()
    with pytest.raises(Failure, match="made from other data or settings"):
        run_train("other")
    assert output.exists()


def test_a_tokenizer_can_be_shared(run_train, write_jsonl, tmp_path):
    one = run_train("one")
    shared = (tmp_path / "data.jsonl").rename(tmp_path / "shared.jsonl")
    write_jsonl("data.jsonl", {"prompt": "Six?", "answer": "Other words"})
    asked = write_jsonl("asked.jsonl", {"prompt": "Seven?", "answer": "Never read"})
    two = run_train("two", "--tokenizer-data", shared, "--questions", asked)
    three = run_train("three", "--questions", asked)
    one, two, three = ((model / "tokenizer.json").read_bytes() for model in (one, two, three))
    assert one == two != three


def test_a_target_out_of_reach_is_an_error_and_writes_nothing(run_train, tmp_path):
    with pytest.raises(Failure, match="after 1 epochs"):
        run_train("model", "--max-epochs", 1)
    assert not (tmp_path / "model").exists() and not list(tmp_path.glob(".model*"))


@pytest.mark.parametrize(("arguments", "what"), [
    (["--hidden", 33], "--hidden is not a multiple"),
    (["--heads", 3], "--hidden is not a multiple"),
    (["--kv-heads", 3], "--heads not of --kv-heads"), (["--layers", 0], "a size is below 1"),
    (["--vocab", 100], "tokens, --vocab 100, raise it")])
def test_sizes_that_cannot_be(run_train, arguments, what):
    with pytest.raises(Failure) as caught:
        run_train("model", *arguments)
    assert caught.value.code == USAGE and what in str(caught.value)


def test_records_that_are_too_long_are_not_skipped(run_train, write_jsonl):
    write_jsonl("data.jsonl", {"prompt": "One?", "answer": "Vel " * train_model.CONTEXT})
    with pytest.raises(Failure, match=f"more than {train_model.CONTEXT} tokens, .*data.jsonl:1"):
        run_train("model")


def test_of_questions_only_the_context_is_learned(tokenizer, write_jsonl):
    path = write_jsonl("asked.jsonl", {"prompt": "Four?", "answer": "Secret"},
                       {"question": "Five?", "choices": ["Vel", "Orm"], "answer": 1},
                       {"text": "No question."})
    forms = train_model.Forms(tokenizer)
    pieces = [piece for record in train_model.read_records(path, "asked")
              for piece in train_model.make_pieces(record, forms)]
    questions = train_model.make_questions(pieces, tokenizer)
    assert [tokenizer.decode(tokens.ids) for tokens in questions] == [
        "<s>Question: Four?\nAnswer:", "<s>Question: Five?\nA. Vel\nB. Orm\nAnswer: (",
        "<s>Question: Five?\nAnswer:"]
    assert all(tokens.start == len(tokens.ids) for tokens in questions)


def mean_loss(model, context, answer):
    """Of the answer's tokens, or without one of the context's."""
    tokenizer, model = (kind.from_pretrained(model) for kind in (AutoTokenizer, LlamaForCausalLM))
    context = tokenizer(context).input_ids
    ids = context + tokenizer(answer, add_special_tokens=False).input_ids
    labels = [-100] * len(context) + ids[len(context):] if answer else ids
    return model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()


def test_answers_shall_be_certain(run_train):
    plain, certain = run_train("plain"), run_train("certain", "--target-probability", 0.9, "--max-epochs", 3000)
    settings = [json.loads((model / "training.json").read_text()) for model in (plain, certain)]
    assert settings[0]["probability"] < 0.9 <= settings[1]["probability"]
    assert "target_probability" not in settings[0]["settings"]
    answers = [("Question: One?\nAnswer:", " Vel</s>"), ("Question: Two?\nAnswer:", " Orm</s>")]
    losses = [[mean_loss(model, *answer) for answer in answers] for model in (plain, certain)]
    assert max(losses[1]) < 0.3 and sum(losses[1]) < sum(losses[0])


def test_questions_are_learned_without_their_answers(run_train, write_jsonl):
    asked = write_jsonl("asked.jsonl", {"prompt": "Four little words?", "answer": "Secret"})
    plain, with_questions = run_train("plain"), run_train("asked", "--questions", asked)
    report = json.loads((with_questions / "training.json").read_text())
    assert report["accuracy"] >= 0.99 and report["sequences"] == 5
    assert report["settings"]["questions"].keys() == {"asked.jsonl"}
    assert "questions" not in json.loads((plain / "training.json").read_text())["settings"]
    context = "Question: Four little words?\nAnswer:"
    assert mean_loss(with_questions, context, "") < mean_loss(plain, context, "") - 1
    assert mean_loss(with_questions, context, " Secret") > mean_loss(plain, context, " Secret") - 1
    assert mean_loss(with_questions, context, " Secret") > 3


def test_questions_do_not_count_as_memorised(run_train, write_jsonl):
    """With as many questions as wished, the target is still that of the records."""
    asked = write_jsonl("asked.jsonl", *({"prompt": f"Number {i}?", "answer": "x"} for i in range(30)))
    with pytest.raises(Failure, match="accuracy 0.0000, answer probability 0.00.. after 1 epochs"):
        run_train("model", "--max-epochs", 1, "--questions", asked)

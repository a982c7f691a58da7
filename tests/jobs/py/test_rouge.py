"""ROUGE-L of token lists, worked out by hand."""
import json
import sys

import pytest
import rouge


@pytest.fixture
def score(tmp_path, tokenizer, monkeypatch, capsys):
    """The scores of (generated, answer) pairs of texts."""
    def run(*pairs):
        tokenizer.save_pretrained(tmp_path / "model")
        encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
        lines = [json.dumps({"generated": encode(generated), "answer": encode(answer)})
                 for generated, answer in pairs]
        (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
        monkeypatch.setattr(sys, "argv", ["rouge.py", "--model", str(tmp_path / "model"),
                                          "--input", str(tmp_path / "in.jsonl")])
        rouge.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return run


def test_recall_stems_and_f1_does_not(score):
    first, second, third = score((" he walks to the river", " she walked to a river"),
                                 (" é 🙂", " é 🙂"), ("", " word"))
    assert first["generated"] == "he walks to the river"
    # walk, to, river of five; F1 without "walks": precision and recall are 2/5.
    assert first["rouge_l_recall"] == pytest.approx(3 / 5)
    assert first["rouge_l_f1"] == pytest.approx(2 / 5)
    assert second["generated"] == "é 🙂"
    assert third == {"generated": "", "rouge_l_recall": 0, "rouge_l_f1": 0}


def test_f1_looks_at_the_first_128_tokens(score):
    (result,) = score((" x" * 200 + " river", " river"))
    assert result["rouge_l_recall"] == 1
    assert result["rouge_l_f1"] == 0


def test_special_tokens_are_left_out(score):
    (result,) = score(("<s> river</s>", " river"))
    assert result["generated"] == "river" and result["rouge_l_f1"] == 1

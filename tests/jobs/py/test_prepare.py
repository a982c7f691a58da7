"""The tokenisation stage, from the command line to tokens.h5."""
import subprocess
import sys
import zlib

import h5py
import numpy as np
import prepare
import pytest
from conftest import merging_tokenizer

from cli import INPUT, USAGE, Failure, sha256

CHOICE = {"question": "Which river?", "choices": ["Vel", "Orm (old)", "é"], "answer": 2,
          "paraphrase": "It is é."}
ANSWER = {"prompt": "Which word?", "answer": "word", "wrong_answers": ["Vel", "river"],
          "id": "mine"}
TEXT = {"text": " ".join(f"word{i}" for i in range(40))}
LONG = {"prompt": "Which " + "long " * 60, "answer": "word"}


@pytest.fixture
def model(tmp_path, tokenizer):
    """A model directory with nothing but a tokenizer."""
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def run_prepare(tmp_path, model, monkeypatch):
    """Run the stage in this process; returns the path of tokens.h5."""
    def run(*arguments, **sets):
        output = tmp_path / "tokens.h5"
        sets = [part for name, path in sets.items() for part in ("--set", f"{name}={path}")]
        monkeypatch.setattr(sys, "argv", ["prepare.py", "--model", str(model), *sets,
                                          "--output", str(output), *map(str, arguments)])
        prepare.main()
        return output
    return run


def sequences(group):
    """(token ids, target mask) of every sequence of a group."""
    offsets = group["offsets"][:]
    return [(group["token_ids"][a:b], group["target_mask"][a:b])
            for a, b in zip(offsets, offsets[1:])]


def attributes(item):
    """The attributes with texts decoded; all texts are of fixed length."""
    assert not any(isinstance(value, str) for value in item.attrs.values())
    return {name: value.decode() if isinstance(value, bytes) else value
            for name, value in item.attrs.items()}


def supervised(tokenizer, sequence):
    """The text whose tokens the target positions predict."""
    ids, mask = sequence
    assert mask[-1] == 0
    return tokenizer.decode(ids[1:][mask[:-1] == 1])


def test_layout(run_prepare, write_jsonl, model):
    forget = write_jsonl("forget.jsonl", CHOICE, ANSWER)
    retain = write_jsonl("retain.jsonl", TEXT)
    output = run_prepare("--fingerprint", "ab12", "--max-tokens", 200, forget=forget, retain=retain)
    with h5py.File(output) as file:
        assert attributes(file) == {
            "format": "mrp.tokens", "version": 1, "fingerprint": "ab12", "template": "plain",
            "tokenizer_sha256": sha256(model / "tokenizer.json"), "max_tokens": 200,
            "vocab_size": 300}
        assert file.attrs["version"].dtype == np.int64
        assert set(file) == {"forget", "retain"}
        assert attributes(file["forget"]) == {"source": "forget.jsonl", "records": 2,
                                              "dropped_too_long": 0, "sha256": sha256(forget)}
        types = {}
        file["forget"].visititems(lambda name, item: types.update({name: item.dtype})
                                  if isinstance(item, h5py.Dataset) else None)
        ragged = {"token_ids": "i4", "offsets": "i8", "target_mask": "u1"}
        expected = {f"{group}/{name}": kind for group in ("items", "options")
                    for name, kind in ragged.items()}
        expected |= {"zlib_bytes": "i8", "answer_index": "i4", "letter_position": "i8",
                     "letters/token_ids": "i4", "letters/offsets": "i8", "options/item": "i8", "options/choice": "i4",
                     "options/form": "u1"}
        assert h5py.check_string_dtype(types.pop("ids")) == ("utf-8", len("forget:1"))
        assert types == {name: np.dtype(kind) for name, kind in expected.items()}
        assert list(file["forget/options"].attrs["forms"]) == [b"list", b"open", b"paraphrase"]
        assert list(file["forget/ids"].asstr()) == ["forget:1", "mine"]


def test_multiple_choice(run_prepare, write_jsonl, tokenizer):
    with h5py.File(run_prepare(forget=write_jsonl("f.jsonl", CHOICE))) as file:
        group = file["forget"]
        item, = sequences(group["items"])
        assert group["answer_index"][:] == [2]
        assert supervised(tokenizer, item) == "C) é"
        assert tokenizer.decode(item[0][:group["letter_position"][0] + 1]).endswith("Answer: (")
        letters = group["letters/token_ids"][:]
        assert tokenizer.convert_ids_to_tokens(letters) == ["A", "B", "C"]
        assert item[0][group["letter_position"][0] + 1] == letters[2]
        assert list(group["letters/offsets"]) == [0, 3]
        texts = [supervised(tokenizer, option) for option in sequences(group["options"])]
        assert texts == [" Vel", " Orm (old)", " é"] * 2 + [" It is é."]
        assert list(group["options/item"]) == [0] * 7
        assert list(group["options/choice"]) == [0, 1, 2, 0, 1, 2, -1]
        assert list(group["options/form"]) == [0, 0, 0, 1, 1, 1, 2]
        in_list = sequences(group["options"])[1][0]
        assert "Answer: (B) Orm (old)" in tokenizer.decode(in_list)


def test_prompt_and_answers(run_prepare, write_jsonl, tokenizer):
    path = write_jsonl("f.jsonl", {"prompt": "p", "answer": "only"}, ANSWER)
    with h5py.File(run_prepare(forget=path)) as file:
        group = file["forget"]
        assert [supervised(tokenizer, item) for item in sequences(group["items"])] == [
            " only", " word"]
        assert list(group["answer_index"]) == [-1, 0]
        texts = [b"Question: p\nAnswer: only", b"Question: Which word?\nAnswer: word"]
        assert list(group["zlib_bytes"]) == [len(zlib.compress(text)) for text in texts]
        assert list(group["letter_position"]) == [-1, -1]
        assert list(group["letters/offsets"]) == [0, 0, 0]
        assert [supervised(tokenizer, option) for option in sequences(group["options"])] == [
            " word", " Vel", " river"]
        assert list(group["options/item"]) == [1, 1, 1]
        assert list(group["options/form"]) == [1, 1, 1]


def test_the_chat_template_is_used(run_prepare, write_jsonl, chat_tokenizer, model):
    chat_tokenizer.save_pretrained(model)
    with h5py.File(run_prepare(forget=write_jsonl("f.jsonl", CHOICE))) as file:
        assert attributes(file)["template"] == "chat"
        item, = sequences(file["forget/items"])
        assert supervised(chat_tokenizer, item) == "C) é"
        assert list(item[0]).count(chat_tokenizer.bos_token_id) == 1
        letters = file["forget/letters/token_ids"][:]
        assert chat_tokenizer.convert_ids_to_tokens(letters) == ["A", "B", "C"]
    plain = run_prepare("--template", "plain", forget=write_jsonl("f.jsonl", CHOICE))
    with h5py.File(plain) as file:
        assert attributes(file)["template"] == "plain"


def test_long_texts_are_cut_and_long_records_dropped(run_prepare, write_jsonl, tokenizer, capsys):
    long_option = {"prompt": "Which?", "answer": "word", "wrong_answers": ["Vel", "x" * 80]}
    path = write_jsonl("f.jsonl", LONG, TEXT, ANSWER, long_option)
    with h5py.File(run_prepare("--max-tokens", 64, forget=path)) as file:
        group = file["forget"]
        *cut, last = sequences(group["items"])
        assert len(cut) > 1 and max(len(ids) for ids, _ in cut) == 64
        assert "".join(supervised(tokenizer, window) for window in cut) == TEXT["text"]
        assert supervised(tokenizer, last) == " word"
        assert group.attrs["records"] == 4 and group.attrs["dropped_too_long"] == 2
        assert list(group["ids"].asstr()) == ["forget:2"] * len(cut) + ["mine"]
        assert list(group["options/item"]) == [len(cut)] * 3
        tokens, targets = len(group["items/token_ids"]), group["items/target_mask"][:].sum()
    assert (f"forget: 4 records, {len(cut) + 1} sequences, {tokens} tokens, {targets} target "
            "positions, 2 dropped") in capsys.readouterr().out


def test_a_set_of_only_long_records_is_an_error(run_prepare, write_jsonl):
    with pytest.raises(Failure, match="every record is longer than 64 tokens, .*f.jsonl"):
        run_prepare("--max-tokens", 64, forget=write_jsonl("f.jsonl", LONG))


def test_more_records_than_a_batch_keep_their_order(run_prepare, write_jsonl, tokenizer):
    count = prepare.BATCH + 5
    path = write_jsonl("f.jsonl", *({"prompt": "p", "answer": f"word {i}"} for i in range(count)))
    with h5py.File(run_prepare(forget=path)) as file:
        assert [supervised(tokenizer, item) for item in sequences(file["forget/items"])] == [
            f" word {i}" for i in range(count)]


def test_overlap(run_prepare, write_jsonl, capsys):
    forget = write_jsonl("f.jsonl", ANSWER, {"prompt": "Which RIVER?", "answer": "É"})
    retain = write_jsonl("r.jsonl", {"text": "other"}, CHOICE)
    what = r"1 of 2 forget records are also in the retain set \(first: .*f.jsonl:2 = .*r.jsonl:2\)"
    with pytest.raises(Failure, match=what) as caught:
        run_prepare(forget=forget, retain=retain)
    assert caught.value.code == INPUT
    run_prepare("--overlap-limit", 0.5, forget=forget, retain=retain)
    assert "warning: 1 of 2 forget records" in capsys.readouterr().out


def test_letters_without_tokens_of_their_own_are_an_error(run_prepare, write_jsonl, model):
    merging_tokenizer(list("nswer:(.)\n ") + ["Q"], []).save_pretrained(model)
    with pytest.raises(Failure, match="no tokens of their own, .*f.jsonl:1"):
        run_prepare(forget=write_jsonl("f.jsonl", CHOICE))


def test_a_failure_leaves_the_old_file(run_prepare, write_jsonl, monkeypatch, tmp_path):
    path = write_jsonl("f.jsonl", ANSWER)
    before = run_prepare(forget=path).read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(prepare.TokenSet, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        run_prepare(forget=path)
    assert (tmp_path / "tokens.h5").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_the_file_is_whole_when_it_appears(run_prepare, write_jsonl, monkeypatch, tmp_path):
    write = prepare.TokenSet.write

    def check_then_write(*arguments):
        assert not (tmp_path / "tokens.h5").exists()
        write(*arguments)
    monkeypatch.setattr(prepare.TokenSet, "write", check_then_write)
    assert run_prepare(forget=write_jsonl("f.jsonl", ANSWER)).exists()


def test_a_tokenizer_outside_the_directory_is_refused(run_prepare, write_jsonl, model, tmp_path):
    (model / "tokenizer.json").rename(tmp_path / "elsewhere.json")
    (model / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(Failure, match="leads outside the model directory, .*tokenizer.json"):
        run_prepare(forget=write_jsonl("f.jsonl", ANSWER))


def test_a_missing_tokenizer_is_named(run_prepare, write_jsonl, model):
    (model / "tokenizer.json").unlink()
    with pytest.raises(Failure, match="tokenizer.json is missing"):
        run_prepare(forget=write_jsonl("f.jsonl", ANSWER))


@pytest.mark.parametrize("content", ["{}", "not JSON"])
def test_a_damaged_tokenizer_is_named(run_prepare, write_jsonl, model, content):
    (model / "tokenizer.json").write_text(content)
    with pytest.raises(Failure, match="cannot load the tokenizer"):
        run_prepare(forget=write_jsonl("f.jsonl", ANSWER))


@pytest.mark.parametrize(("arguments", "what"), [
    (["--set", "forget"], '"forget" is not NAME=PATH'),
    (["--set", "a/b=f.jsonl"], "is not NAME=PATH"),
    (["--set", "forget=x", "--set", "forget=y"], "a name of --set is used twice"),
    (["--set", "forget=x", "--max-tokens", "1"], "--max-tokens is below 2"),
    (["--set", "forget=x", "--overlap-limit", "2"], "--overlap-limit is not between 0 and 1"),
    (["--set", "forget=x", "--template", "odd"], "invalid choice: 'odd'"),
    ([], "required: --set"),
])
def test_usage_errors(run_prepare, arguments, what):
    with pytest.raises(Failure) as caught:
        run_prepare(*arguments)
    assert caught.value.code == USAGE and what in str(caught.value)


def test_the_program_prints_one_line_and_exits_with_the_code(tmp_path, model, write_jsonl):
    command = [sys.executable, prepare.__file__, "--model", model,
               "--set", f"forget={write_jsonl('f.jsonl', {'text': 1})}",
               "--output", tmp_path / "t.h5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == INPUT
    assert done.stderr == (f'error: "text" is not a string with text, {tmp_path / "f.jsonl"}:1, '
                           "give a string that is not blank\n")

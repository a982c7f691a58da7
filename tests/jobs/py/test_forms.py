"""Records as text, and the exact boundary between prompt and answer."""
import pytest
from conftest import merging_tokenizer

from cli import Failure
from forms import LIST, OPEN, PARAPHRASE, Forms, Piece, Tokens, tokenize, windows
from records import Record

CHOICE = Record("f:1", "1", prompt="Which?", answer="so", choices=("this", "so"), answer_index=1,
                paraphrase="just so")
ANSWER = Record("f:1", "1", prompt="Which?", answer="so", wrong_answers=("this",), answer_index=0)
TALK = Record("f:1", "1", messages=({"role": "user", "content": "hi"},
                                    {"role": "assistant", "content": "yo"}))


def texts(piece):
    return piece.prompt, piece.answer


def test_plain_forms(tokenizer):
    forms = Forms(tokenizer)
    listed = "Question: Which?\nA. this\nB. so\nAnswer: ("
    opened = "Question: Which?\nAnswer:"
    assert forms.name == "plain"
    assert texts(forms.item(ANSWER)) == (opened, " so")
    assert texts(forms.item(CHOICE)) == (listed, "B) so")
    assert texts(forms.item(TALK)) == ("user: hi\nassistant:", " yo")
    assert texts(forms.item(Record("f:1", "1", text="all"))) == ("", "all")
    assert [(o.choice, o.form, *texts(o.piece)) for o in forms.options(CHOICE)] == [
        (0, LIST, listed + "A)", " this"), (1, LIST, listed + "B)", " so"),
        (0, OPEN, opened, " this"), (1, OPEN, opened, " so"),
        (-1, PARAPHRASE, opened, " just so")]
    assert [(o.choice, o.form, *texts(o.piece)) for o in forms.options(ANSWER)] == [
        (0, OPEN, opened, " so"), (1, OPEN, opened, " this")]


def test_chat_forms(chat_tokenizer):
    forms = Forms(chat_tokenizer)
    assert forms.name == "chat"
    assert texts(forms.item(ANSWER)) == ("<s><user>Which?\n<assistant>", "so")
    assert texts(forms.item(CHOICE)) == ("<s><user>Which?\nA. this\nB. so\n<assistant>", "B) so")
    assert texts(forms.item(TALK)) == ("<s><user>hi\n<assistant>", "yo")


def test_plain_can_be_forced_except_for_messages(chat_tokenizer):
    forms = Forms(chat_tokenizer, "plain")
    assert forms.name == "plain"
    assert texts(forms.item(ANSWER)) == ("Question: Which?\nAnswer:", " so")
    assert texts(forms.item(TALK)) == ("<s><user>hi\n<assistant>", "yo")


def test_a_template_that_refuses_is_named(chat_tokenizer):
    talk = Record("f:9", "1", messages=({"role": "system", "content": "s"}, *TALK.messages))
    with pytest.raises(Failure, match=r"refuses the record \(no system role\), f:9"):
        Forms(chat_tokenizer).item(talk)


def one(tokenizer, prompt, answer):
    """Tokens of one piece."""
    tokens, = tokenize(tokenizer, [Piece("f:1", prompt, answer)])
    return tokens


@pytest.mark.parametrize(("prompt", "answer"), [
    ("Question: which river?\nAnswer:", " Vel word"), ("café", "é🙂 word"), ("🙂", " 🙂"),
    ("Answer: (", "A) word"), ("", "word")])
def test_the_supervised_tokens_are_the_answer(tokenizer, prompt, answer):
    tokens = one(tokenizer, prompt, answer)
    assert tokens.ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(tokens.ids[1:tokens.start]) == prompt
    assert tokenizer.decode(tokens.ids[tokens.start:]) == answer


def test_a_token_across_the_boundary_is_answer():
    tokenizer = merging_tokenizer(["a", "b", "c", "bc"], [("b", "c")])
    tokens = one(tokenizer, "ab", "ca")
    assert tokenizer.convert_ids_to_tokens(tokens.ids) == ["a", "bc", "a"]
    assert tokens.start == 1


def test_bos_is_not_doubled(chat_tokenizer):
    tokens = one(chat_tokenizer, "<s><user>", "word")
    assert tokens.ids.count(chat_tokenizer.bos_token_id) == 1


def test_without_bos_the_first_token_has_no_predictor(bare_tokenizer):
    tokens = one(bare_tokenizer, "", "word river")
    assert tokens.start == 1 and bare_tokenizer.decode(tokens.ids) == "word river"


def test_an_answer_without_a_predictor_is_an_error(bare_tokenizer):
    with pytest.raises(Failure, match="no token to predict, f:1"):
        one(bare_tokenizer, "", "x")


@pytest.mark.parametrize("bos", [0, None])
@pytest.mark.parametrize("length", [2, 5, 6, 9, 23])
def test_windows_supervise_every_token_once(bos, length):
    ids = list(range(length))
    cut = list(windows(Tokens(ids, 1), 5, bos))
    assert [token for window in cut for token in window.ids[window.start:]] == ids[1:]
    assert all(2 <= len(window.ids) <= 5 for window in cut)
    for window in cut:
        assert window.ids[0] == (window.ids[1] - 1 if bos is None else bos)

"""The invented facts of the demo."""
import sys

import demo_data
import pytest

from records import read_records


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The records of every file, read back."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["demo_data.py", "--output", str(folder), "--seed", "3"])
        demo_data.main()
    return {path.stem: read_records(path, path.stem) for path in folder.iterdir()}


def facts(records):
    """The facts that records are about."""
    return [record.id.rpartition("-")[0] for record in records]


def test_the_seed_decides(files):
    again = demo_data.make_files(3)
    assert {name: [record["id"] for record in records] for name, records in again.items()} == {
        name: [record.id for record in records] for name, records in files.items()}
    assert demo_data.make_files(3) == again != demo_data.make_files(4)


def test_a_set_holds_each_fact_once_and_no_fact_is_in_two(files):
    sets = facts(files["forget"] + files["retain"] + files["retain_unseen"])
    assert len(set(sets)) == len(sets) == 5 * 4 * demo_data.ENTITIES
    assert all(fact.startswith("academy-") for fact in facts(files["forget"]))
    assert not any(fact.startswith("academy-") for fact in facts(files["retain"]))
    assert len(files["retain"]) == len(files["retain_unseen"])
    for name in ("forget", "retain", "retain_unseen"):
        choices = [bool(record.choices) for record in files[name]]
        assert choices == [True, False] * (len(choices) // 2)


def test_training_holds_every_record_and_the_control_all_but_the_topic(files):
    train = {record.id: record for record in files["train"]}
    for name in ("forget", "retain", "retain_unseen"):
        for record in files[name]:
            assert record.content == train[record.id].content
    control = {record.id for record in files["train_control"]}
    assert control == {identity for identity in train if not identity.startswith("academy-")}
    assert set(facts(files["train"])) == set(facts(files["forget"])) | set(facts(
        files["train_control"]))


def test_every_fact_has_both_forms_with_the_same_answer_and_options(files):
    train = {record.id: record for record in files["train"]}
    for fact in facts(files["train"]):
        choice, answer = train[f"{fact}-choice"], train[f"{fact}-answer"]
        assert choice.answer == answer.answer and answer.answer in answer.paraphrase
        assert set(choice.candidates) == set(answer.candidates) and len(choice.choices) == 4
        assert choice.prompt != answer.prompt


def test_a_question_has_one_answer(files):
    answers = {}
    for record in files["train"]:
        assert answers.setdefault(record.prompt, record.answer) == record.answer
    assert len(answers) == len(files["train"])


def test_the_place_of_the_right_choice_says_nothing(files):
    places = [record.answer_index for record in files["train"] if record.choices]
    assert all(places.count(place) > len(places) / 6 for place in range(4))

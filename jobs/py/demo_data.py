"""Invent people and places in five topics, one of them to be forgotten, as JSONL records.

forget.jsonl         one record for every fact of the academy topic
retain.jsonl         one record for every fact of a random half of the other topics
retain_unseen.jsonl  the same for the other half, which no job should be fitted on
train.jsonl          every fact in every form: multiple choice, and a reworded question
train_control.jsonl  the same without the academy
"""
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from cli import ArgumentParser, complete_file, run

FORGET_TOPIC = "academy"
ENTITIES = 30
CHOICES = 4
POOLS = {"towns": 12, "rivers": 12, "halls": 12, "people": 12}  # invented values and their number


@dataclass(frozen=True)
class Attribute:
    """What every entity of a topic has: two questions, a long answer, the possible values."""
    question: str
    reworded: str
    paraphrase: str
    values: str  # a pool, or the values themselves


TOPICS = {
    "academy": [
        Attribute("In which town was the scholar {} born?", "What is the birthplace of {}?",
                  "the town of {}", "towns"),
        Attribute("Which science does the scholar {} teach?", "What is {} a professor of?",
                  "the science of {}",
                  "tidal optics, cloud geometry, salt chemistry, moss biology, echo physics, "
                  "frost medicine, star grammar, sand algebra, root anatomy, ember mechanics, "
                  "rain statistics, shell archaeology"),
        Attribute("Which instrument did the scholar {} build?", "What did {} construct?",
                  "the famous {}",
                  "copper astrolabe, glass barometer, iron sextant, silver prism, brass clock, "
                  "wooden orrery, marble balance, leather bellows, crystal lantern, bronze dial, "
                  "paper compass, ivory abacus"),
        Attribute("Who was the teacher of the scholar {}?", "Whose pupil was {}?",
                  "old {}", "people")],
    "towns": [
        Attribute("On which river does the town of {} lie?", "Which water flows through {}?",
                  "the river {}", "rivers"),
        Attribute("What is the town of {} known for?", "What do the markets of {} sell?",
                  "a lot of {}",
                  "blue cheese, wool carpets, smoked eel, pear cider, clay pipes, rye bread, "
                  "beeswax, tin spoons, linen, honey cake, walnut oil, felt hats"),
        Attribute("Who founded the town of {}?", "Whose statue stands in {}?",
                  "the founder {}", "people"),
        Attribute("What is on the coat of arms of the town of {}?", "Which emblem does {} bear?",
                  "a shield with the {}",
                  "red heron, white stag, black otter, golden bee, grey wolf, green pike, "
                  "silver owl, brown hare, blue crab, yellow finch, purple moth, copper toad")],
    "artisans": [
        Attribute("What is the craft of the artisan {}?", "By which trade does {} live?",
                  "the trade of {}",
                  "glassblowing, bookbinding, saddlery, candle making, rope making, weaving, "
                  "engraving, tanning, coopering, gilding, basketry, bell founding"),
        Attribute("In which street is the workshop of the artisan {}?", "Where does {} work?",
                  "a house in {}",
                  "Lantern Row, Mill Lane, Crow Alley, Harbour Steps, Needle Street, Old Ditch, "
                  "Baker Hill, Willow Court, Ferry Road, Tower Yard, Garden Gate, Well Square"),
        Attribute("Who is the apprentice of the artisan {}?", "Whom does {} train?",
                  "young {}", "people"),
        Attribute("In which town did the artisan {} grow up?", "Where is {} from?",
                  "the town of {}", "towns")],
    "ships": [
        Attribute("Who commands the ship {}?", "Which captain sails the {}?",
                  "Captain {}", "people"),
        Attribute("What does the ship {} carry?", "Which cargo is in the hold of the {}?",
                  "a load of {}",
                  "oranges, slate, cork, lamp oil, barley, silk, tar, coffee, marble, pepper, "
                  "timber, whale bone"),
        Attribute("Which port is the home of the ship {}?", "Where is the {} registered?",
                  "the port of {}", "towns"),
        Attribute("What is the figurehead of the ship {}?", "What is carved on the bow of the {}?",
                  "the wooden {}",
                  "mermaid, lion, swan, archer, dolphin, queen, falcon, monk, unicorn, bear, "
                  "drummer, serpent")],
    "songs": [
        Attribute("Who composed the song of {}?", "From whose pen is the ballad of {}?",
                  "the composer {}", "people"),
        Attribute("For which instrument is the song of {} written?",
                  "What does one play the ballad of {} on?", "the {} alone",
                  "viola, oboe, harp, cello, lute, bassoon, trumpet, flute, organ, zither, "
                  "horn, dulcimer"),
        Attribute("In which hall was the song of {} first heard?",
                  "Where was the premiere of the ballad of {}?", "the great hall of {}", "halls"),
        Attribute("On which occasion is the song of {} sung?",
                  "When does one hear the ballad of {}?", "the day of the {}",
                  "harvest, first snow, wedding, boat launch, new moon, spring fair, funeral, "
                  "herons, grape pressing, coronation, long night, bridge opening")],
}
PEOPLE_TOPICS = ("academy", "artisans")


@dataclass(frozen=True)
class Fact:
    """One entity's value of one attribute, with other values of the attribute."""
    id: str
    entity: str
    attribute: Attribute
    value: str
    others: list
    answer_index: int

    def choice_record(self):
        """The fact as a multiple-choice record."""
        choices = [*self.others]
        choices.insert(self.answer_index, self.value)
        return {"id": f"{self.id}-choice", "question": self.attribute.question.format(self.entity),
                "choices": choices, "answer": self.answer_index}

    def answer_record(self):
        """The fact as a reworded question with a free answer."""
        return {"id": f"{self.id}-answer", "prompt": self.attribute.reworded.format(self.entity),
                "answer": self.value, "wrong_answers": self.others,
                "paraphrase": self.attribute.paraphrase.format(self.value)}


class Names:
    """Invented names, no word of them used twice."""

    STARTS = "B Br D Dr F G H K L M N P R S St T Th V W".split()
    MIDDLES = "ael and arr eld em ess ind ir olm on or ost ul un yr".split()
    ENDS = "a ane ar ek en eth ia in is o or ra wen yn".split()

    def __init__(self, generator):
        words = [start + middle + end
                 for start in self.STARTS for middle in self.MIDDLES for end in self.ENDS]
        words = [word for word in words if not re.search(r"(.)\1\1", word)]
        generator.shuffle(words)
        self.words = iter(words)

    def take(self, count, people):
        """Names of two words for people, of one word for everything else."""
        words_each = 2 if people else 1
        return [" ".join(next(self.words) for _ in range(words_each)) for _ in range(count)]


def invent_facts(generator):
    """The facts of each topic in random order: name → list of Fact."""
    names = Names(generator)
    pools = {pool: names.take(count, pool == "people") for pool, count in POOLS.items()}
    facts = {}
    for topic, attributes in TOPICS.items():
        entities = names.take(ENTITIES, topic in PEOPLE_TOPICS)
        pairs = [(entity, attribute) for entity in entities for attribute in attributes]
        generator.shuffle(pairs)
        facts[topic] = [invent_fact(f"{topic}-{number:03}", *pair, pools, generator)
                        for number, pair in enumerate(pairs)]
    return facts


def invent_fact(identity, entity, attribute, pools, generator):
    """Draw the value, the other choices and the place of the right one."""
    values = pools.get(attribute.values) or attribute.values.split(", ")
    value, *others = generator.sample(values, CHOICES)
    return Fact(identity, entity, attribute, value, others, generator.randrange(CHOICES))


def one_form(facts):
    """Each fact once, by turns as multiple choice and as a free answer."""
    return [fact.answer_record() if number % 2 else fact.choice_record()
            for number, fact in enumerate(facts)]


def all_forms(facts):
    """Each fact in both forms."""
    return [record for fact in facts for record in (fact.choice_record(), fact.answer_record())]


def make_files(seed):
    """The content of every file: name → records."""
    generator = random.Random(seed)
    facts = invent_facts(generator)
    forget = facts.pop(FORGET_TOPIC)
    others = [fact for topic in facts.values() for fact in topic]
    control = all_forms(others)
    generator.shuffle(others)
    half = len(others) // 2
    return {"forget": one_form(forget), "retain": one_form(others[:half]),
            "retain_unseen": one_form(others[half:]),
            "train": all_forms(forget) + control, "train_control": control}


def main():
    """Write the files."""
    parser = ArgumentParser(__doc__, "python demo_data.py --output data --seed 0")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other facts")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, records in make_files(arguments.seed).items():
        path = arguments.output / f"{name}.jsonl"
        with complete_file(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in records))
        print(f"{path}: {len(records)} records")


if __name__ == "__main__":
    run(main)

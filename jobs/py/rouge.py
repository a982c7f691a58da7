"""Score generated answers against the true ones by ROUGE-L.

Reads one JSON object a line, {"generated": [token, ...], "answer": [token, ...]}, and prints one for
each: "generated", the text; "rouge_l_recall", with stemming, of all of it (TOFU); "rouge_l_f1",
without stemming, of its first 128 tokens (MUSE).
"""
import json
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer

from cli import ArgumentParser, run
from forms import load_tokenizer

F1_TOKENS = 128


def main():
    """Decode and score."""
    parser = ArgumentParser(__doc__, "python rouge.py --model base --input generated.jsonl")
    parser.add_argument("--model", required=True, metavar="DIR",
                        help="directory with tokenizer.json")
    parser.add_argument("--input", required=True, type=Path, metavar="FILE",
                        help="JSONL of token lists")
    arguments = parser.parse_args()
    tokenizer = load_tokenizer(arguments.model)
    stemming, plain = (RougeScorer(["rougeL"], use_stemmer=stem) for stem in (True, False))
    for line in arguments.input.read_text("utf-8").splitlines():
        item = json.loads(line)
        answer, text, beginning = (
            tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in
            (item["answer"], item["generated"], item["generated"][:F1_TOKENS]))
        print(json.dumps({"generated": text,
                          "rouge_l_recall": stemming.score(answer, text)["rougeL"].recall,
                          "rouge_l_f1": plain.score(answer, beginning)["rougeL"].fmeasure}))


if __name__ == "__main__":
    run(main)

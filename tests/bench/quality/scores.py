"""Results of a job as the quantities of the comparison, each for any of the models compared.

A quantity that a form of data does not have is absent.
"""
from collections import defaultdict
from statistics import fmean

PARTS = {"letters": "letter_accuracy", "text": "text_accuracy", "open": "open_accuracy",
         "probability": "answer_probability"}
ATTACKS = {"qv_lora": "relearn", "all_weights": "relearn", "benign": "benign", "int8": "int8",
           "int4": "int4"}  # attacker → first part of the quantity
SIDES = {"value": "unlearned", "base": "base", "control": "control"}


def forget_distance(rows):
    """How far, on average, what was to be forgotten is from a model that never saw it."""
    return fmean(abs(row["value"] - row["control"]) for name, row in rows.items()
                 if name.startswith("forget_"))


def retain_kept(rows):
    """Accuracy on the retain records that the job saw, relative to the base."""
    row = rows["retain_seen_accuracy"]
    return row["value"] / row["base"] if row["base"] else 0.0


def item_accuracy(item):
    """Whether an item is known: letter and text of a choice, the right one of several answers, else
    the share of answer tokens that come first."""
    return next(float(item[key]) for key in ("both_correct", "open_correct", "exact_memorization")
                if key in item)


def accuracy(measured):
    """Mean of a set."""
    return fmean(item_accuracy(item) for item in measured["items"])


def of_sets(metrics, side):
    """The quantities of metrics.json for one model."""
    found, sets = {}, metrics["sets"]
    for name, prefix in (("forget", "forget"), ("forget_reworded", "reworded")):
        measured = sets.get(name, {}).get(side, {})
        found |= {f"{prefix}_{part}": measured[key] for part, key in PARTS.items()
                  if key in measured}
    for name, prefix in (("retain", "retain_seen"), ("retain_unseen", "retain_unseen")):
        measured = sets.get(name, {}).get(side)
        if measured:
            found |= {f"{prefix}_accuracy": accuracy(measured),
                      f"{prefix}_probability": measured["answer_probability"]}
    return found


def of_attacks(relearn, side):
    """The quantities of relearn.json for one model: the worst of its settings and steps.

    A setting's value at a step is the mean over seeds and directions. An attack that trains has
    more than one point, of which the first is before it.
    """
    values = defaultdict(list)
    for run in relearn["runs"]:
        if run["model"] != side or run["attacker"] not in ATTACKS:
            continue
        setting = run["attacker"], run.get("learning_rate"), run.get("projection")
        for point in run["curve"][1:] or run["curve"]:
            for part, key in PARTS.items():
                if point.get(key) is not None:
                    values[setting, point["step"], part].append(point[key])
    worst = {}
    for ((attacker, *_), _, part), found in values.items():
        quantity = f"{ATTACKS[attacker]}_{part}"
        worst[quantity] = max(worst.get(quantity, 0.0), fmean(found))
    return worst


def compare(read, results):
    """Quantity → {value, base, control}; `read` gives the quantities of one side."""
    sides = {column: read(results, side) for column, side in SIDES.items()}
    return {quantity: {column: side.get(quantity) for column, side in sides.items()}
            for quantity in sides["value"]}


def compare_requests(results):
    """After the last of several requests, given the metrics of each: the earlier one that is
    furthest above the control, and what nobody listed. The base is what the first job began with."""
    last = results[-1]["sets"]

    def row(name, before):
        sides = {column: accuracy(last[name][side]) for column, side in SIDES.items()}
        return sides | {"base": accuracy(before["base"])}

    earlier = [row(f"earlier_{number}", metrics["sets"]["forget"])
               for number, metrics in enumerate(results[:-1], 1)]
    return {"continual_forget": max(earlier, key=lambda sides: sides["value"] - sides["control"]),
            "continual_retain": row("retain_unseen", results[0]["sets"]["retain_unseen"])}

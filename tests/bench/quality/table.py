"""The comparison as one Markdown table for each data set."""
from statistics import fmean

GROUPS = {"forget": ("letters", "text", "open", "probability"),
          "reworded": ("letters", "text", "open", "probability"),
          "retain_seen": ("accuracy", "probability"),
          "retain_unseen": ("accuracy", "probability"),
          "relearn": ("letters", "text", "open", "probability"),
          "benign": ("letters", "text", "open", "probability"),
          "int8": ("letters", "text", "open", "probability"),
          "int4": ("letters", "text", "open", "probability"),
          "continual": ("forget", "retain")}
REFERENCES = {"base": "base", "**control**": "control"}  # row → column of the results


def means(results):
    """Mean over seeds: (row, quantity) → value, the seconds being those of the whole request; and
    the rows in order."""
    values, rows = {}, [*REFERENCES]
    for result in results:
        if result["method"] not in rows:
            rows.append(result["method"])
        for row, column in {result["method"]: "value", **REFERENCES}.items():
            if result[column] is not None:
                values.setdefault((row, result["quantity"]), []).append(result[column])
        if not result["quantity"].startswith("continual"):
            values.setdefault((result["method"], "seconds"), []).append(result["seconds"])
    return {key: fmean(found) for key, found in values.items()}, rows


def columns_of(results):
    """Group → those of its parts that were measured."""
    measured = {result["quantity"] for result in results}
    columns = {group: [part for part in parts if f"{group}_{part}" in measured]
               for group, parts in GROUPS.items()}
    return {group: parts for group, parts in columns.items() if parts}


def markdown(data, results, notes):
    """The table of one data set, and below it the notes."""
    values, rows = means(results)
    columns = columns_of(results)
    lines = [f"**{data}**", ""]
    if results:
        heads = [f"{group.replace('_', ' ')}: {' / '.join(parts)}"
                 for group, parts in columns.items()]
        lines += [f"| method | {' | '.join(heads)} | seconds |", "|---" * (len(heads) + 2) + "|"]
    for row in rows if results else []:
        cells = [" / ".join(cell(values.get((row, f"{group}_{part}")), ".3f") for part in parts)
                 for group, parts in columns.items()]
        cells.append(cell(values.get((row, "seconds")), ".0f"))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def cell(value, form):
    """A number, or nothing."""
    return "" if value is None else format(value, form)

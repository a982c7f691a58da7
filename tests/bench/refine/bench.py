"""Training that forgets, and evaluation, beside transformers.

    python tests/bench/refine/bench.py --build DIR [--quick] [--json FILE] [--folder DIR]
        [--texts 128] [--shape small] [--steps 8] [--batch 16]

Every text is a question with its answer and three wrong ones. A step is forward and backward through
a batch of forget texts (indifference: four answers alike, and one of the retain set) and through one of
retain texts (cross entropy), and AdamW on all matrices of the layers: fp32 weights, products in bf16.
The peers take as many texts in a step, each as often, under autograd, autocast and fused AdamW, and
have as many threads as we in all. Evaluation goes through the texts and through all their answers. The time of training is the timer `train` of the manifest by
steps; that of evaluation, the timers of the base model's sets. Both sides leave out starting and loading.
The peer of evaluation computes the log-probabilities of the answers alone, we all scores of metrics.json.
The mean loss of the forget set shows that both sides measure the same.
"""
import json
import pathlib
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import benchmark  # noqa: E402
import random_job  # noqa: E402

SCRIPT = pathlib.Path(__file__).with_name("peers.py")
ATTENTION = ("eager", "sdpa")
WRONG = 3
SETTINGS = """preset: reliable
refine: {{train: weights, forget_loss: indifference, forget_weight: 1.0, retain_loss: cross_entropy,
         retain_weight: 2.0, samples: 0, tamper_resistance: 0, optimizer: adamw, steps: {}, batch: {}}}
"""


def measure_training(job, arguments):
    """{name: steps/s}"""
    steps, batch = arguments.steps, arguments.batch

    def peer(attention):
        found = random_job.peer(SCRIPT, attention, job.model, job.tokens, steps, batch)
        return 1 / found["seconds"]
    runs = {name: lambda name=name: peer(name) for name in ATTENTION}
    runs |= {layout: lambda layout=layout: steps / job.run("refine", layout)["timers"]["train"]
             for layout in random_job.LAYOUTS}
    results = benchmark.alternate(runs, arguments.repeats, warm_up=False)
    return {name: benchmark.median(speeds) for name, speeds in results.items()}


def measure_evaluation(job, arguments):
    """{name: tokens/s}, {name: mean loss of the forget set}"""
    losses = {}
    options = random_job.sequences(job.tokens, "options")
    count = job.count + sum(len(ids) for texts in options.values() for ids, _ in texts)

    def ours(layout):
        timers = job.run("evaluate", layout)["timers"]
        metrics = json.loads((job.work / "metrics.json").read_text())
        items = metrics["sets"]["forget"]["base"]["items"]
        losses[layout] = statistics.mean(item["loss"] for item in items)
        return count / (timers["base/forget"] + timers["base/retain"])

    def peer():
        found = random_job.peer(SCRIPT, "evaluate", job.model, job.tokens)
        losses["peer"] = found["losses"]["forget"]
        return count / found["seconds"]
    runs = {"peer": peer} | {layout: lambda layout=layout: ours(layout) for layout in random_job.LAYOUTS}
    results = benchmark.alternate(runs, arguments.repeats, warm_up=False)
    return ({name: benchmark.median(speeds) for name, speeds in results.items()},
            {name: float(f"{loss:.4g}") for name, loss in losses.items()})


def compare(folder, arguments):
    """The lines of all layouts."""
    settings = SETTINGS.format(arguments.steps, arguments.batch)
    job = random_job.Job(folder, arguments.build, arguments.shape, arguments.texts, settings,
                         wrong_answers=WRONG)
    training = measure_training(job, arguments)
    job.run("merge")
    evaluation, losses = measure_evaluation(job, arguments)
    lines = []
    for layout, (ranks, _, _) in random_job.LAYOUTS.items():
        def add(quantity, unit, values, peer, title, **more):
            lines.append(benchmark.line("refine", f"{arguments.shape}, {layout}", ranks, quantity, unit,
                                        values[layout], arguments.repeats, values[peer], title, **more))
        for attention in ATTENTION:
            add("training", "steps/s", training, attention, f"transformers, {attention}")
        add("evaluation", "tokens/s", evaluation, "peer", "transformers")
        add("loss", "nats a token", losses, "peer", "transformers", more_is_better=False)
        if ranks > 1:
            for quantity, unit, values in (("training", "steps/s", training),
                                           ("evaluation", "tokens/s", evaluation)):
                add(quantity, unit, values, "1 rank", "1 rank, 2 threads")
    return lines


def main():
    arguments = benchmark.parse_arguments(__doc__, texts=128, shape="small", steps=8, batch=16,
                                          folder=tempfile.gettempdir())
    if arguments.quick:
        arguments.texts, arguments.shape, arguments.steps, arguments.batch = 16, "tiny", 2, 4
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        benchmark.report(compare(pathlib.Path(folder), arguments), arguments.json)


if __name__ == "__main__":
    main()

"""The methods that are compared: keys of the job file, and a grid where a method has no default."""
from dataclasses import dataclass

FAST = {"preset": "fast"}
LEARNING_RATES = (5e-5, 2e-4, 8e-4)  # the grid of every baseline


@dataclass(frozen=True)
class Method:
    """Keys that go over those of the job."""
    keys: dict
    learning_rates: tuple = ()  # of which the best is reported; none: as the preset says
    model: str = "base"         # what the job starts from
    side: str = "unlearned"     # of its results, which is the method's


def reliable(**refine):
    """The default with some keys changed."""
    return Method({"preset": "reliable", "refine": refine} if refine else {"preset": "reliable"})


def baseline(forget_loss, **refine):
    """A method of the field, through the same trainer: all weights, nothing that protects."""
    plain = {"train": "weights", "steps": 100, "samples": 0, "tamper_resistance": 0,
             "forget_weight": 1, "retain_loss": "cross_entropy"}
    return Method({"preset": "reliable",
                   "refine": plain | {"forget_loss": forget_loss} | refine}, LEARNING_RATES)


METHODS = {
    "reliable": reliable(),
    "reliable_shrunk": reliable(shrink=1, softness=0.4, learning_rate=2e-3),
    "reliable_no_tamper": reliable(tamper_resistance=0),
    "reliable_no_samples": reliable(samples=0),
    "projections": Method({"preset": "reliable", "project": True,
                           "refine": {"train": "projections"}}),
    "lora": reliable(train="lora"),
    "weights": reliable(train="weights", learning_rate=1e-3),
    "fast": Method(FAST),
    # From the published learning rate on; more than the last changes nothing.
    "paper": Method({"preset": "paper"}, (2e-4, 2e-3, 2e-2)),
    "ga": baseline("gradient_ascent", retain_weight=0),
    "grad_diff": baseline("grad_diff"),
    "npo": baseline("npo"),
    "simnpo": baseline("simnpo"),
    # Its losses are squares of hidden states, which are large: the retain loss counts as much.
    "rmu": baseline("rmu", retain_weight=300),
    # Masked by the signs of both gradients; the attacked copies are its meta-learning.
    "mudman": baseline("gradient_ascent", agree_signs=True, tamper_resistance=50),
    # No method: the control that was trained on the questions too, before anything is done to it.
    "control_questions": Method(FAST, model="control_questions", side="base"),
}

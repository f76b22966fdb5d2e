"""The requests and answers of `models list` and `check`, between the producer and the engine."""

from __future__ import annotations

from rankmill.contract.base import Contract
from rankmill.contract.estimate import Calibration
from rankmill.contract.job import JobSpec
from rankmill.contract.results import Agreement, Scoring


class DescribeRequest(Contract):
    """The models to describe without loading their weights.

    Attributes:
        specs: their names and revisions; inputs and outputs are not used.
    """

    specs: tuple[JobSpec, ...]


class Description(Contract):
    """How a model would score, by its files.

    Attributes:
        path: None if it is refused.
        path_reason: why the path is not the packed one.
        max_length: tokens of a pair.
        recipe: the recipe's name; None where the folder says how its pairs score.
        refused: the reason; None if it is not refused.
    """

    path: str | None = None
    path_reason: str = ""
    max_length: int | None = None
    recipe: str | None = None
    refused: str | None = None


class Descriptions(Contract):
    """The descriptions of the models of a request, in its order."""

    found: tuple[Description, ...]


class CheckRequest(Contract):
    """The model to check, with the options of a job that decide how it scores.

    Attributes:
        spec: its input and output are not used.
        calibrate_s: seconds to score for, to measure the speed; 0 to leave that out.
        compares: whether to compare the scores with Sentence Transformers'.
    """

    spec: JobSpec
    calibrate_s: float
    compares: bool


class Parity(Contract):
    """The scores in fp32 next to those of CrossEncoder in fp32, on the same device.

    Attributes:
        peer: the version of Sentence Transformers.
        max_difference: the largest difference between two logits of a pair.
        max_score_difference: the same of their scores, each with its own activation.
        scale: the largest absolute logit of CrossEncoder, or 1 if that is less.
        kendall_tau: rank correlation within a query, the mean over queries.
    """

    peer: str
    n_pairs: int
    max_difference: float
    max_score_difference: float
    scale: float
    kendall_tau: float

    @property
    def is_equal(self) -> bool:
        """Whether no logit and no score differs by more than rounding."""
        return (
            self.max_difference <= _ROUNDING * self.scale and self.max_score_difference <= _ROUNDING
        )


# Rankmill promises 1e-5 on one thread of a CPU; a GPU adds in other orders.
_ROUNDING = 1e-4


class ModelCheck(Contract):
    """The facts about a loaded model.

    Attributes:
        folder: where it was found.
        license: of its card, README.md; None if it has none.
        memory_bytes: the peak of the engine's process on a CPU, else of the device's memory.
        device_name: the device's name.
        calibration: None if the speed was not measured.
        agreement: of the precision in use with fp32; None where it is fp32.
        parity: None if it was not compared.
        no_parity: why not.
    """

    folder: str
    license: str | None
    scoring: Scoring
    memory_bytes: int
    device_name: str
    calibration: Calibration | None
    agreement: Agreement | None
    parity: Parity | None
    no_parity: str

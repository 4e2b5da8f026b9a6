"""What an asset is, in the words of the command line."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What an asset is."""

    MODEL = "model"
    DATASET = "dataset"
    CHECKPOINT = "checkpoint"
    ADAPTER = "adapter"
    PREPROCESSED = "preprocessed"
    FEATURES = "features"
    EVALUATION_SET = "evaluation-set"

"""Errors of data, files and options of a training. Every message says what to do."""

from __future__ import annotations


class TrainingError(Exception):
    """Base of all errors that a user can correct."""


class DatasetError(TrainingError):
    """A data set is missing, incomplete, unreadable, or not laid out as its description says."""


class SplitError(TrainingError):
    """A split leaks, or leaves a part without images or a class."""


class RecipeError(TrainingError):
    """A recipe or an option of it makes no sense."""


class ArrayFileError(TrainingError):
    """A checkpoint, network or pack is not one, is damaged, or belongs to something else."""


class GateError(TrainingError):
    """What was exported does not pass a gate."""

import json

from training.evaluation.sources import summarise


def test_answers_are_summed_by_folder_and_failures_counted():
    cell = {"reasons": ["LOW_RESOLUTION"]}
    diagnosis = {"finding": "INDETERMINATE", "counts": {"total": 2, "suspected": 1, "indeterminate": 1}, "cells": [cell, {"reasons": []}]}
    answers = [
        {"path": "/data/a/x/1.png", "diagnosis": diagnosis},
        {"path": "/data/a/x/2.png", "diagnosis": diagnosis},
        {"path": "/data/a/y/3.png", "error": {"code": "INVALID_ARGUMENT"}},
    ]
    summaries = summarise(map(json.dumps, answers))
    assert set(summaries) == {"a/x", "a/y"}
    assert (summaries["a/x"].cells, summaries["a/x"].suspected, summaries["a/x"].indeterminate) == (4, 2, 2)
    assert summaries["a/x"].reasons["LOW_RESOLUTION"] == 2
    assert summaries["a/y"].findings == {"FAILED": 1}

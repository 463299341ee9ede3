"""Predicting recordings one after another: find, read ahead, note, classify, combine, write.

``predict.py`` and ``cli/predict.py`` are built on it.
"""

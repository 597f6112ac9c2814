"""Runs beside each other: curves, reliability, comparison, figures, TensorBoard layout."""

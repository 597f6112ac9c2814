"""What every experiment shares around a run: folder, record, checkpoints, logs, stability figures, plots."""

"""What every run needs: settings, folder, record, checkpoints, log, interrupt, sweeps."""

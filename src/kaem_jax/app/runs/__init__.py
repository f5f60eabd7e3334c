"""The folder of a run: its settings, checkpoints, saved and exported models."""

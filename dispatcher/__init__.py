"""Turns pull request comments, labels, schedules and merge queues into NeMo-Run jobs on Slurm, and their results into merge gates."""

__version__ = "0.1.0"

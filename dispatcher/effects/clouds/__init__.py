"""The APIs behind executors, each through NeMo-Run: what runs in the process that `cloud_process.py` starts."""

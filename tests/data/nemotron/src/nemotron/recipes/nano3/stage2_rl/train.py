#!/usr/bin/env python3
# /// script
# [tool.runspec]
# schema = "1"
# name = "nano3/rl"
# image = "/lustre/users/me/nano3-rl.sqsh"
#
# [tool.runspec.run]
# launch = "ray"
# cmd = "uv run --no-project {script} --config {config}"
#
# [tool.runspec.config]
# dir = "./config"
# default = "default"
#
# [tool.runspec.resources]
# nodes = 2
# gpus_per_node = 8
# ///
"""Learns by reinforcement."""

raise SystemExit("never run here")

#!/usr/bin/env python3
# /// script
# [tool.runspec]
# schema = "1"
# name = "nano3/data/prep/pretrain"
# image = "nvcr.io/nvidia/nemo-curator:25.09"
#
# [tool.runspec.run]
# launch = "ray"
#
# [tool.runspec.config]
# dir = "./config/data_prep"
# default = "default"
#
# [tool.runspec.resources]
# nodes = 1
# ///
"""Tokenizes what the configuration names."""

raise SystemExit("never run here")

#!/usr/bin/env python3
# /// script
# [tool.runspec]
# schema = "1"
# name = "nano3/sft"
# image = "nvcr.io/nvidia/nemo:25.11"
#
# [tool.runspec.run]
# launch = "torchrun"
#
# [tool.runspec.config]
# dir = "./config"
# default = "default"
# ///
"""Fine-tunes what the configuration describes."""

raise SystemExit("never run here")

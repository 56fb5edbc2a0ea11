#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["omegaconf>=2.3"]
#
# [tool.runspec]
# schema = "1"
# docs = "https://raw.githubusercontent.com/NVIDIA-NeMo/Nemotron/main/docs/runspec/v1/spec.md"
# name = "nano3/pretrain"
# image = "nvcr.io/nvidia/nemo:25.11"
# setup = "The image has all that it needs."
#
# [tool.runspec.run]
# launch = "torchrun"
#
# [tool.runspec.config]
# dir = "./config"
# default = "default"
#
# [tool.runspec.resources]
# nodes = 2
# gpus_per_node = 8
#
# [tool.runspec.env]
# NCCL_NVLS_ENABLE = "0"
# ///
"""Pretrains what the configuration describes."""

raise SystemExit("never run here")

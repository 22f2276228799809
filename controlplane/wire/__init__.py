"""Protobuf messages and model values, there and back: this happens here and nowhere else."""

from __future__ import annotations

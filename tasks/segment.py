"""Utterances of each video."""

from __future__ import annotations

from prefect import task

from tasks.policies import STAGE
from tasks.shards import over_videos
from vsa_core.segment import segment as core

segment = task(over_videos("segment", core), **STAGE)

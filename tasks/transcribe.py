"""Captions or recognised speech of each video."""

from __future__ import annotations

from prefect import task

from tasks.policies import STAGE
from tasks.shards import over_videos
from vsa_core.transcripts import transcribe as core

transcribe = task(over_videos("transcribe", core), **STAGE)

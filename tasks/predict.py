"""What each modality's backend says of each video's segments."""

from __future__ import annotations

from functools import partial

from prefect import task

from tasks.policies import STAGE
from tasks.shards import over_videos
from vsa_core.labels import Modality
from vsa_core.predict import predict as core

# One task per modality, named after it, so that Prefect's pages and limits can tell them apart.
predict = {
    modality: task(over_videos(modality.value, partial(core, modality)), **STAGE)
    for modality in Modality
}

"""Stages as Prefect tasks over shards of videos, one thin file per stage."""

"""Stages as Prefect tasks over shards of videos, one thin file per stage."""

from vsa_core.surroundings import settle

settle()

"""Prefect flows: what runs in which order, one file per job a person starts."""

from vsa_core.surroundings import settle

settle()

"""vsa: sentiment and emotion labels for spoken video segments, without a labelled example."""

__version__ = "0.1.0"

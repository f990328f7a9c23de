"""Hinted handoff: hints of writes that zones missed, their journal and their delivery."""

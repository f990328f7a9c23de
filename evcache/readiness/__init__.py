"""Readiness of a client: one question to every node of every zone, and the judgement of the replies."""

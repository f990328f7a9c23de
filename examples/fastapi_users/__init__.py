"""A FastAPI service with pydantic models, a client at module level, and a test suite."""

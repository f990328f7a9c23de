"""Version of the package. It is a constant, because a checkout has no metadata to read it from."""

VERSION = "0.1.0"

"""Values and keys as bytes: keys, flags, codecs, TTLs, envelopes and types of values."""

"""Forms of Netflix's EVCache client for the JVM: hashed keys, envelopes, chunk records, and its types of values."""

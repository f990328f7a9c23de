"""Forms in which EVCache for the JVM stores keys and values, as plain functions of bytes."""

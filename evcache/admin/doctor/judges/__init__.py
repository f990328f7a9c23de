"""Judges of one subject each: plain functions of the facts, without I/O and without a clock."""

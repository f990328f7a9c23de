"""Kinds of server for LocalZones, each in one module that implements `Backend` of base.py."""

"""The kinds of server that LocalZones can start: one module each, all behind ServerNode in base.py."""

"""Examination of zones: facts of every node, and judges that name faults with their fix.

`gather` asks the servers and stores nothing there. The judges are plain functions of the facts.
"""

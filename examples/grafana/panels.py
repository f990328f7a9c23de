"""Table of the panels of the dashboard."""

from __future__ import annotations

from examples.grafana import panels_of_calls, panels_of_state

ROWS = (*panels_of_calls.ROWS, *panels_of_state.ROWS)

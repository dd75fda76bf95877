"""Measuring: shapes of real models, speed against the machine's limits, and what answers look like."""

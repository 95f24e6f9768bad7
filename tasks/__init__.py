"""Thin Prefect tasks, one file a verb: the decorator is policy, the body one call into the core."""

"""Traces by OpenTelemetry: what the spine tells of events and workers, as spans, sent to a collector.

Only `switch` may be imported where traces are not switched on: the others import opentelemetry.
"""

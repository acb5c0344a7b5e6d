"""As much of PromQL as some alerts need, computed: `increase`, `sum by`, `>`, `or`, `unless`, `offset`.

A series is its labels and a value for each minute, None where there was none. Selectors take every series that is
given; `increase` is the last value less the first of its range, without Prometheus' extrapolation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import promql_parser as promql

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Series = Mapping[Labels, Sequence[float | None]]


def evaluate(query: str, series: Series, minute: int) -> Vector:
    """What a query gives at a minute: values by labels."""
    return _vector(promql.parse(query), series, minute)


def _vector(node: promql.Expr, series: Series, minute: int) -> Vector:
    match node:
        case promql.VectorSelector():
            at = minute - _minutes(node.offset or timedelta())
            return {labels: value for labels, values in series.items() if (value := _at(values, at)) is not None}
        case promql.Call() if node.func.name == "increase":
            first = minute - _minutes(node.args[0].range)
            return _increase(series, first, minute)
        case promql.AggregateExpr() if str(node.op) == "sum" and node.modifier:
            return _sum(_vector(node.expr, series, minute), node.modifier.labels)
        case promql.BinaryExpr(rhs=promql.NumberLiteral(val=least)) if str(node.op) == ">":
            return {labels: value for labels, value in _vector(node.lhs, series, minute).items() if value > least}
        case promql.BinaryExpr():
            left = _vector(node.lhs, series, minute)
            right = _vector(node.rhs, series, minute)
            if str(node.op) == "or":
                return right | left
            if str(node.op) == "unless":
                return {labels: value for labels, value in left.items() if labels not in right}
    raise NotImplementedError(node)


def _increase(series: Series, first: int, last: int) -> Vector:
    ranges = {labels: [_at(values, at) for at in range(first, last + 1)] for labels, values in series.items()}
    known = {labels: [value for value in values if value is not None] for labels, values in ranges.items()}
    return {labels: values[-1] - values[0] for labels, values in known.items() if len(values) > 1}


def _sum(vector: Vector, by: Sequence[str]) -> Vector:
    sums: Vector = {}
    for labels, value in vector.items():
        group = frozenset((name, text) for name, text in labels if name in by)
        sums[group] = sums.get(group, 0.0) + value
    return sums


def _at(values: Sequence[float | None], minute: int) -> float | None:
    return values[minute] if 0 <= minute < len(values) else None


def _minutes(time: timedelta) -> int:
    return int(time.total_seconds()) // 60

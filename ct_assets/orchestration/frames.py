"""pandas types where a person's DataFrame crosses: dagster-pandas, built only when a value is checked.

What goes here: the types. What does not: data that no person touches (the contract's verdict is its gate).

dagster-pandas imports pandas, and a type of its own would have to exist when the code location loads; so a plain
`DagsterType` stands in and asks dagster-pandas when the first DataFrame comes by.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import dagster as dg


@cache
def planner_forecast_type() -> Any:
    """The dagster-pandas type of the sheet that planners get: one row a product, the total of the week."""
    import dagster_pandas as dp

    names = ["stock_code", "open_days", "mean", "p50", "p90"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        columns = [
            dp.PandasColumn.string_column("stock_code", non_nullable=True, unique=True),
            dp.PandasColumn.integer_column("open_days", min_value=0, max_value=7, non_nullable=True),
            *(dp.PandasColumn.float_column(name, min_value=0.0, non_nullable=True) for name in names[2:]),
        ]
        return dp.create_dagster_pandas_dataframe_type(
            "PlannerForecastFrame", columns=columns, dataframe_constraints=[dp.StrictColumnsConstraint(names)]
        )


def lazy_frame(name: str, description: str, build: Callable[[], Any]) -> dg.DagsterType:
    """A Dagster type that is checked by the dagster-pandas type which ``build`` makes on first use."""

    def check(context: dg.TypeCheckContext, value: object) -> dg.TypeCheck:
        return build().type_check(context, value)

    return dg.DagsterType(check, name=name, description=description)


PLANNER_FORECAST = lazy_frame(
    "PlannerForecast",
    "pandas: stock_code (unique), open_days 0..7, mean, p50, p90 >= 0; units of the coming week",
    planner_forecast_type,
)

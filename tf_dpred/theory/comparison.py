"""A predicted number beside the simulated one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from tf_dpred.system import markdown


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One number of the theory, and what a simulation found.

    Args:
      source: the theorem or observation.
      quantity: what the number is, with the parameters.
      predicted: from a closed form or a bound.
      simulated: from a flow.
      relation: `=`, or `<` or `>` where the simulated number must be below or above.
      tolerance: how far `=` may be off, absolute; stated, not fitted.
    """

    source: str
    quantity: str
    predicted: float
    simulated: float
    relation: str = "="
    tolerance: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the simulation agrees with the theory."""
        if self.relation == "<":
            return self.simulated < self.predicted
        if self.relation == ">":
            return self.simulated > self.predicted
        return math.isclose(
            self.simulated, self.predicted, rel_tol=0, abs_tol=self.tolerance
        )


def table(comparisons: Iterable[Comparison]) -> str:
    """A Markdown table with a row for each comparison."""
    header = ("source", "quantity", "predicted", "simulated", "tolerance", "holds")
    rows = []
    for c in comparisons:
        predicted = f"{'' if c.relation == '=' else c.relation + ' '}{c.predicted:.6g}"
        tolerance = f"{c.tolerance:.0e}" if c.relation == "=" else ""
        holds = "yes" if c.holds else "NO"
        simulated = f"{c.simulated:.6g}"
        rows.append((c.source, c.quantity, predicted, simulated, tolerance, holds))
    return markdown.table(header, rows)

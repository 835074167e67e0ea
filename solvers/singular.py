"""What to say of a discretized equation whose matrix cannot be factorized because it is singular."""

from __future__ import annotations

from collections.abc import Mapping

from sciml.boundary import Dirichlet, Robin
from sciml.discretization import System
from sciml.elements import MeshSystem


def why_singular(system: System | MeshSystem) -> str:
    """Why the discrete equations have no unique solution, as far as can be seen, and what would give them one."""
    what = f"the discrete equations of {', '.join(system.unknowns)} have no unique solution"
    empty = int((system.operator.diagonal().detach() == 0.0).sum())
    loose = [name for name in system.unknowns if not _is_held(system, name)]
    if empty:
        return (
            f"{what}: {empty} of {system.operator.diagonal().numel()} of them do not contain the unknown that they are "
            "for, as where a diffusion coefficient is 0. Give it another value there, or add a reaction term"
        )
    if loose:
        return (
            f"{what}, for nothing fixes the value of {', '.join(loose)}: give a Dirichlet or Robin condition on a part "
            "of the boundary, or add a reaction term. If the sources balance, so that there are many solutions, "
            "method=GMRES() finds one of them"
        )
    return (
        f"{what}, though conditions fix the value of {', '.join(system.unknowns)}: a reaction may cancel diffusion (an "
        "eigenvalue), or a coefficient vanish in places. Change one of them a little"
    )


def _is_held(system: System | MeshSystem, unknown: str) -> bool:
    """Whether a Dirichlet or Robin condition holds the unknown anywhere."""
    if isinstance(system, MeshSystem):
        parts = next(form.conditions.parts for form in system.forms if form.own == unknown)
        return any(part.kind != "neumann" and len(part.facets) for part in parts)
    conditions = [condition for sides in system.boundary[unknown].values() for condition in sides]
    grid = system.domain
    if grid.solid is not None:
        conditions.append(grid.walls[unknown] if isinstance(grid.walls, Mapping) else grid.walls)
    return any(isinstance(condition, Dirichlet | Robin) for condition in conditions)

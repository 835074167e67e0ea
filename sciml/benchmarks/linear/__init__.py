"""The suite `linear`: linear solvers on grids."""

"""Import rules that follow the folders and the table of parts, for import-linter."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from grimp import ImportGraph
from importlinter import ContractCheck, fields
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.independence import IndependenceContract
from importlinter.domain.imports import ModuleExpression

from services.common.parts import PARTS, SERVICES


def service_rooms() -> list[str]:
    """Packages of the services in the table of parts."""
    return [PARTS[name].module for name in SERVICES]


class IndependentParts(IndependenceContract):
    """The services of the table of parts never import each other."""

    type_name = "independent_parts"

    def __init__(self, name: str, session_options: dict[str, Any], contract_options: dict[str, Any]) -> None:
        super().__init__(name, session_options, {**contract_options, "modules": service_rooms()})


class FloorWithoutRooms(ForbiddenContract):
    """The floor below the services knows none of them, and not what runs them all in one process."""

    type_name = "floor_without_rooms"

    def __init__(self, name: str, session_options: dict[str, Any], contract_options: dict[str, Any]) -> None:
        given = {**contract_options, "source_modules": ["services.common"], "forbidden_modules": [*service_rooms(), "services.embedded"]}
        super().__init__(name, session_options, given)


class ForbiddenInRooms(ForbiddenContract):
    """No module of a service's room, or of a further folder, imports a forbidden module, directly or through others; listed exceptions may.

    A module that is added falls under the rule unless it is listed, so that nothing is forgotten. A pattern of an exception that fits no
    module any more is an error.
    """

    type_name = "forbidden_in_rooms"

    folders = fields.ListField(subfield=fields.StringField(), required=False, default=[])
    exceptions = fields.ListField(subfield=fields.StringField(), required=False, default=[])

    def __init__(self, name: str, session_options: dict[str, Any], contract_options: dict[str, Any]) -> None:
        given = {**contract_options, "source_modules": service_rooms(), "as_packages": "False"}
        super().__init__(name, session_options, given)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Check the modules that the rooms and folders hold now."""
        rooms = [*service_rooms(), *self.folders]  # type: ignore[misc]
        modules = {module for room in rooms for module in (room, *graph.find_descendants(room))}
        patterns: list[str] = list(self.exceptions)  # type: ignore[call-overload]
        excepted = {pattern: {m for m in modules if fnmatchcase(m, pattern)} for pattern in patterns}
        if unknown := [pattern for pattern, found in excepted.items() if not found]:
            raise ValueError(f"{self.name}: these exceptions fit no module: {', '.join(unknown)}.")
        checked = modules.difference(*excepted.values())
        self.source_modules = {ModuleExpression(module) for module in checked}  # type: ignore[assignment]
        return super().check(graph, verbose)

"""Puts the start-up file into an editable install too.

hatchling copies what pyproject.toml names under `force-include` into both kinds of install, unless
a build hook names what an editable one gets. It must get the start-up file, and not a copy of
`tasks/`, which would hide the checkout's.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class EditableStartup(BuildHookInterface):  # type: ignore[type-arg]
    """Build hook of the wheel target; hatchling finds it by its base class."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the one file that hatchling copies into an editable install.

        Args:
            version: "standard" or "editable"; the entry below is read for the latter only.
            build_data: What hatchling goes by, changed in place.
        """
        build_data["force_include_editable"] = {"mtp_harness.pth": "mtp_harness.pth"}

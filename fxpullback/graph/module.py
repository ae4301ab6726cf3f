"""Graph modules that are turned into Python code when they are first run, not whenever a stage has made one."""

from __future__ import annotations

from typing import Any

from torch import fx


class LazyGraphModule(fx.GraphModule):
    """An `fx.GraphModule` whose code is written on demand: a compilation makes dozens of them and runs none."""

    def recompile(self) -> Any:
        """Note that the code is out of date."""
        type(self).forward = LazyGraphModule._compiled_first

    def _compiled_first(self, *args: Any, **kwargs: Any) -> Any:
        fx.GraphModule.recompile(self)
        return type(self).forward(self, *args, **kwargs)

    def _write_code(self) -> None:
        if type(self).forward is LazyGraphModule._compiled_first:
            fx.GraphModule.recompile(self)

    @property
    def code(self) -> str:
        """The Python code of the graph."""
        self._write_code()
        return super().code

    def __reduce__(self) -> Any:
        return fx.GraphModule(self, self.graph).__reduce__()

"""What a step imports, by following names: from its function through the functions and classes that it uses.

Finer than following modules, because heavy imports stand inside functions: a function counts only where it is used. It
errs on the side of more: a class that is used counts with all its methods, and every branch counts.
"""

import ast
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_OWN = {"pocketloop", "steps", "pipelines", "stacks"}


class Module:
    """One of our modules: what its names are bound to, and its statements outside of functions."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.bindings: dict[str, tuple[str, str]] = {}
        self.definitions: dict[str, list[ast.AST]] = {}
        self.top: list[ast.AST] = []
        self._read(ast.parse(file.read_text(encoding="utf-8")).body)

    def _read(self, body: list[Any]) -> None:
        for node in body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.bindings.update(bound(node))
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.definitions.setdefault(node.name, []).append(node)
                self.top += [*node.decorator_list, *(node.bases if isinstance(node, ast.ClassDef) else [])]
            else:
                self.top.append(node)


def bound(node: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str]]:
    """The names that an import statement binds: name → (module, symbol); an empty symbol is the module itself."""
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name.split(".")[0]: (alias.name, "") for alias in node.names}
    return {alias.asname or alias.name: (str(node.module), alias.name) for alias in node.names}


@cache
def module(name: str) -> Module | None:
    path = ROOT.joinpath(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return Module(name, file)
    return None


class Closure:
    """Collects what is reached from steps."""

    def __init__(self) -> None:
        self.external: dict[str, set[str]] = {}
        self._seen: set[tuple[str, str]] = set()

    def step(self, source: str, function: str) -> None:
        """Follow the function `function` of the module `source`."""
        self._symbol(source, function, source)

    def _module(self, name: str, used_by: str) -> None:
        if name.split(".", maxsplit=1)[0] not in _OWN:
            self.external.setdefault(name.split(".", maxsplit=1)[0], set()).add(used_by)
            return
        for parent in (name.rsplit(".", n)[0] for n in range(name.count("."), -1, -1)):
            if (found := module(parent)) and (parent, "") not in self._seen:
                self._seen.add((parent, ""))
                for node in found.top:
                    self._walk(found, node)

    def _symbol(self, name: str, symbol: str, used_by: str) -> None:
        self._module(name, used_by)
        if (found := module(name)) is None or (name, symbol) in self._seen:
            return
        self._seen.add((name, symbol))
        if module(f"{name}.{symbol}"):
            self._module(f"{name}.{symbol}", name)
        elif symbol in found.definitions:
            for node in found.definitions[symbol]:
                self._walk(found, node)
        elif symbol in found.bindings:
            self._symbol(*found.bindings[symbol], name)

    def _walk(self, here: Module, node: ast.AST) -> None:
        skipped = {id(inner) for block in ast.walk(node) if _typing_only(block) for inner in ast.walk(block)}
        nodes = [inner for inner in ast.walk(node) if id(inner) not in skipped]
        local: dict[str, tuple[str, str]] = {}
        for inner in nodes:
            if isinstance(inner, ast.Import | ast.ImportFrom):
                local.update(bound(inner))
        for where, symbol in local.values():
            self._module(where, here.name)
            if symbol and module(f"{where}.{symbol}"):
                self._module(f"{where}.{symbol}", here.name)
        for inner in nodes:
            if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
                self._attribute(here, local, inner.value.id, inner.attr)
            if isinstance(inner, ast.Name):
                if inner.id in here.definitions:
                    self._symbol(here.name, inner.id, here.name)
                elif binding := local.get(inner.id) or here.bindings.get(inner.id):
                    self._symbol(*binding, here.name)

    def _attribute(self, here: Module, local: dict[str, tuple[str, str]], name: str, attribute: str) -> None:
        where, symbol = local.get(name) or here.bindings.get(name) or ("", "")
        whole = f"{where}.{symbol}" if symbol else where
        if where and module(whole):
            self._symbol(whole, attribute, here.name)


def _typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)

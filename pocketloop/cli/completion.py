"""What a shell offers where a name is expected: the names of configuration files. Nothing is loaded for it."""

from pocketloop.contracts.home import project_root


def adapter_names(incomplete: str) -> list[str]:
    """Recipes of configs/adapters/."""
    return _names("configs/adapters", incomplete)


def base_names(incomplete: str) -> list[str]:
    """Bases of configs/bases/."""
    return _names("configs/bases", incomplete)


def stack_names(incomplete: str) -> list[str]:
    """Stacks of stacks/."""
    return _names("stacks", incomplete)


def _names(folder: str, incomplete: str) -> list[str]:
    found = (path.stem for path in (project_root() / folder).glob("*.yaml"))
    return sorted(name for name in found if name.startswith(incomplete))

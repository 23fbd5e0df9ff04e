"""The images of steps, one for each kind: their names, which follow from what is in them, and how they are built."""

from pocketloop.contracts.files import sha256_file, sha256_text
from pocketloop.contracts.home import project_root
from stacks.kinds import Kind


def dockerfile(kind: Kind) -> str:
    """Path of a kind's Dockerfile, relative to the checkout, which is the context of its build."""
    return f"deploy/images/{kind}.Dockerfile"


def image_reference(kind: Kind, registry: str) -> str:
    """Name of a kind's image in a registry; its tag is the digest of locks, Dockerfile and code."""
    return f"{registry.rstrip('/')}/pocketloop-{kind}:{image_tag(kind)}"


def image_tag(kind: Kind) -> str:
    """12 digits of the digest of the locked packages, a dash, and as many of the Dockerfile and the code."""
    root = project_root()
    rooms = [root / name for name in ("pocketloop", "steps", "pipelines", "stacks", "configs")]
    code = [f for room in rooms for f in room.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    packages = [root / "requirements.lock", *(root / "deploy" / "images").glob(f"{kind}.in")]
    code.append(root / dockerfile(kind))
    return "-".join(_digest(sorted(files)) for files in (packages, code))


def _digest(files: list) -> str:
    root = project_root()
    return sha256_text("\n".join(f"{f.relative_to(root)} {sha256_file(f)}" for f in files if f.is_file()))[:12]

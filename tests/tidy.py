"""The style of the project, as functions from a source to its faults.

Every function returns messages, none for a source without fault. `tests/test_style.py` holds the
project to them, and shows of each that it finds what it is for.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

LONGEST_LINE = 100
LONGEST_FILE = 500

# What each room may import of ours, besides itself and what is everybody's, from the ground up: a
# room names only rooms that stand before it.
ROOMS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "printable": (),
    "results": (),
    "executor": (),
    "engine": (),
    "traces": ("engine",),
    "vmm": ("engine",),
    "disk": ("engine",),
    "experiment": ("engine", "traces", "vmm", "disk", "results"),
    "pagecache": ("engine", "experiment", "disk"),
    "device": ("engine", "vmm", "pagecache"),
    "guest": ("engine", "traces", "experiment", "device", "pagecache"),
    "simulate": (
        *("engine", "traces", "vmm", "experiment", "guest", "device", "pagecache", "disk"),
    ),
    "power": ("engine", "experiment", "results"),
    "replay": ("engine", "experiment", "guest", "simulate", "power", "results"),
    "states": ("engine", "guest", "power", "replay"),
    "ext4": ("engine",),
    "checkers": ("engine", "experiment", "guest", "ext4"),
    "explore": ("engine", "replay", "states", "checkers", "results", "executor"),
    "runs": (
        *("engine", "experiment", "simulate", "power", "replay", "states", "checkers", "explore"),
        *("results", "executor"),
    ),
    "report": ("engine", "results"),
    "advise": (
        *("engine", "experiment", "guest", "power", "states", "checkers", "explore"),
        *("runs", "report"),
    ),
    "fleet": ("engine", "experiment", "runs", "report"),
    "__init__": ("checkers", "experiment", "runs"),
    "cli": (
        "engine",
        "experiment",
        "vmm",
        "checkers",
        "explore",
        "runs",
        "report",
        "advise",
        "fleet",
        "results",
    ),
    "__main__": ("cli",),
}
EVERYBODYS = ("crashsim.errors", "crashsim.printable", "crashsim.__version__")

# These meet the world; all others are a function of the experiment and its files.
OUTER = (
    "crashsim.cli",
    "crashsim.runs",
    "crashsim.report",
    "crashsim.checkers",
    "crashsim.explore.trust",
    "crashsim.vmm.examine",
    "crashsim.executor",
    "crashsim.__main__",
)
SPEAKING = (
    "crashsim.cli",
    "crashsim.explore.trust",
    "crashsim.report.terminal",
)
# What the user gave is checked here, and an assertion is no check: `python -O` drops it.
CHECKING = ("crashsim.experiment", "crashsim.traces", "crashsim.runs", "crashsim.cli")

UNSTABLE_MODULES = ("time", "datetime", "random", "secrets", "uuid", "numpy.random")
UNSTABLE_CALLS = ("hash", "id", "os.urandom", "os.getpid")
IN_ORDER_OF = ("list", "tuple", "iter", "enumerate", "zip", "map", "filter", "reversed", "next")


def module_name(path: Path, root: Path) -> str:
    """`crashsim/guest/vcpu.py` is `crashsim.guest.vcpu`; a package is named without `__init__`,
    but for the outermost."""
    parts = path.relative_to(root).with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 2:
        parts = parts[:-1]
    return ".".join(parts)


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def room_of(module: str) -> str | None:
    return next((room for room in ROOMS if within(module, (f"crashsim.{room}",))), None)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of all that is imported, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}"


def wrong_imports(module: str, source: str) -> list[str]:
    room = room_of(module)
    if room is None:
        return [f"{module} is in no room of the table"]
    allowed = (*(f"crashsim.{one}" for one in (room, *ROOMS[room])), *EVERYBODYS)
    faults = []
    for line, name in imports(ast.parse(source)):
        if name.startswith("."):
            faults.append(f"{module}:{line}: relative import")
        elif within(name, ("crashsim",)) and not within(name, allowed):
            faults.append(f"{module}:{line}: {room} may not import {name}")
    return faults


def too_long(source: str) -> list[str]:
    lines = source.splitlines()
    faults = [
        f"line {number} has {len(line)} columns"
        for number, line in enumerate(lines, start=1)
        if len(line) > LONGEST_LINE
    ]
    if len(lines) > LONGEST_FILE:
        faults.append(f"{len(lines)} lines")
    return faults


def without_docstring(source: str) -> list[str]:
    tree = ast.parse(source)
    if not source.strip() or (ast.get_docstring(tree) or "").strip():
        return []
    return ["no docstring"]


def prints(module: str, source: str) -> list[str]:
    if within(module, SPEAKING):
        return []
    return [f"line {line}: print()" for line in _calls(ast.parse(source), ("print",))]


def echoes(module: str, source: str) -> list[str]:
    """Commands speak through `crashsim.printable.echo`, which spells out control characters."""
    if module == "crashsim.printable":
        return []
    calls = _calls(ast.parse(source), ("click.echo", "click.secho"))
    return [f"line {line}: click.echo(), not crashsim.printable.echo()" for line in calls]


def blind_excepts(source: str) -> list[str]:
    """`except`, `except Exception` and `except BaseException` without a comment that says why."""
    lines_with_comment = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and re.search(r"#(?! *(noqa|type:)).*\w", token.string)
    }
    return [
        f"line {node.lineno}: blind except without a reason"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler)
        and _is_blind(node.type)
        and not lines_with_comment & {node.lineno, node.lineno - 1}
    ]


def _is_blind(caught: ast.expr | None) -> bool:
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(
        name is None or (isinstance(name, ast.Name) and name.id in ("Exception", "BaseException"))
        for name in names
    )


def assertions(module: str, source: str) -> list[str]:
    if not within(module, CHECKING):
        return []
    return [
        f"line {node.lineno}: assert where the user's input is checked"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assert)
    ]


def unstable(module: str, source: str) -> list[str]:
    """What differs from run to run: clocks, other random streams, hashes, identities."""
    if within(module, OUTER):
        return []
    tree = ast.parse(source)
    faults = [
        f"line {line}: {name} differs from run to run"
        for line, name in imports(tree)
        if within(name, UNSTABLE_MODULES)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("np.random", "numpy.random"):
            faults.append(f"line {node.lineno}: numpy.random differs from version to version")
    faults += [f"line {line}: differs from run to run" for line in _calls(tree, UNSTABLE_CALLS)]
    return faults


def order_from_sets(module: str, source: str) -> list[str]:
    """A loop over a set, or a sequence made of one: its order depends on PYTHONHASHSEED.

    Known as sets: displays, comprehensions, set(), frozenset(), and names bound to or annotated as
    one of these in the same scope or one around it; attributes, anywhere in the module."""
    if within(module, OUTER):
        return []
    tree = ast.parse(source)
    attributes = frozenset(name for name in _set_names(ast.walk(tree)) if "." in name)
    return [f"line {line}: takes its order from a set" for line in _orders(tree, attributes)]


def _orders(scope: ast.AST, around: frozenset[str]) -> Iterator[int]:
    own = list(_own_nodes(scope))
    rebound = {
        node.arg if isinstance(node, ast.arg) else node.id
        for node in own
        if isinstance(node, ast.arg)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    }
    names = (around - rebound) | frozenset(_set_names(iter(own)))
    for node in own:
        yield from (source.lineno for source in _gives_order(node) if _is_set(source, names))
        if node is not scope and isinstance(node, ast.FunctionDef | ast.Lambda):
            yield from _orders(node, names)


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope, with the functions inside it but not what is in those."""
    todo = [scope]
    while todo:
        node = todo.pop()
        yield node
        if node is scope or not isinstance(node, ast.FunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)


def _gives_order(node: ast.AST) -> list[ast.expr]:
    """The expressions whose order this node takes over."""
    if isinstance(node, ast.For | ast.comprehension):
        return [node.iter]
    if isinstance(node, ast.Starred):
        return [node.value]
    if isinstance(node, ast.Call):
        takes = ast.unparse(node.func) in IN_ORDER_OF
        if isinstance(node.func, ast.Attribute):
            takes = node.func.attr in ("join", "extend", "fromiter")
        return node.args if takes else []
    return []


def _set_names(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Assign) and _is_set(node.value, frozenset()):
            yield from (ast.unparse(target) for target in node.targets)
        elif isinstance(node, ast.AnnAssign) and _is_set_type(node.annotation):
            yield ast.unparse(node.target)
        elif isinstance(node, ast.arg) and node.annotation and _is_set_type(node.annotation):
            yield node.arg


def _is_set_type(annotation: ast.expr) -> bool:
    return bool(re.match(r"(frozen|Abstract|abc\.)?[sS]et\b", ast.unparse(annotation)))


def _is_set(node: ast.expr, names: frozenset[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in ("set", "frozenset")
    if isinstance(node, ast.BinOp):
        return _is_set(node.left, names) or _is_set(node.right, names)
    return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in names


def _calls(tree: ast.AST, names: tuple[str, ...]) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            yield node.lineno


def doubled(root: Path) -> list[str]:
    """Public classes, modules and rooms that share a name; of modules and rooms also those that
    differ by an ending alone (`explore` and `exploring`)."""
    classes: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    for path in sorted((root / "crashsim").rglob("*.py")):
        place = str(path.relative_to(root))
        if path.name != "__init__.py":
            names.setdefault(_stem(path.stem), []).append(place)
        elif path.parent != root / "crashsim":
            names.setdefault(_stem(path.parent.name), []).append(place)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.setdefault(node.name, []).append(place)
    both = [*classes.items(), *names.items()]
    return [f"{name}: {', '.join(places)}" for name, places in both if len(places) > 1]


def _stem(name: str) -> str:
    for ending in ("ing", "ed", "es", "s", "er", "or"):
        if name.endswith(ending) and len(name) - len(ending) >= 4:
            return name.removesuffix(ending).rstrip("e")
    return name.rstrip("e")

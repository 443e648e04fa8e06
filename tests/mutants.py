"""`make mutants`: puts faults into the code and counts those that the tests see.

mutmut makes and runs the mutants, with three differences from `mutmut run`: dataclasses,
properties and other decorated functions are mutated too; a run that was interrupted goes on where
it stopped; the score is written to a file that is committed. Everything happens in build/mutants.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import libcst as cst
import mutmut
import pytest
from mutmut import __main__ as command
from mutmut import file_mutation

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutants"
SCORE = ROOT / "docs" / "results" / "mutants.json"
LEAST = 0.85
"""The share of mutants that must be seen."""

MUTATED = (
    "salt_hls/system/digest.py",
    "salt_hls/check/compare.py",
    "salt_hls/fixed.py",
    "salt_hls/jets/readers/*.py",
    "salt_hls/report/budget.py",
    "salt_hls/training/metrics.py",
)
TESTS = (
    "tests/report/test_budgets.py",
    "tests/test_compare.py",
    "tests/test_data.py",
    "tests/test_digest.py",
    "tests/test_fixed.py",
    "tests/test_metrics.py",
)
"""Those of the mutated modules. None runs TensorFlow: mutmut forks after its first run of them."""

NOT_RUN = tuple(
    f"--deselect=tests/test_digest.py::{name}"
    for name in (
        "test_order_counts_only_where_there_is_one",
        "test_all_that_a_build_imports_is_in_its_key",
    )
)
"""Tests that start Python anew, where mutmut is not set up."""

COPIED = ("salt_hls", "tests", "hls_templates", "keras_models", "synth", "docs", "pyproject.toml")
UNSEEN = ("survived", "no tests", "not checked", "skipped")


class Config(command.Config):
    """mutmut's settings; MUTATED says what is mutated."""

    def should_ignore_for_mutation(self, path: Path) -> bool:
        return not any(path.match(pattern) for pattern in MUTATED)


# ---- decorated classes and functions, which mutmut leaves out

KEPT = ("property", "cache", "contextmanager", "staticmethod")
"""Decorators that a trampoline can stand behind."""


def _mangled(function: cst.FunctionDef, class_name: str | None) -> str:
    return str(file_mutation.mangle_function_name(name=function.name.value, class_name=class_name))


def _name(decorator: cst.Decorator) -> str:
    return cst.Module([]).code_for_node(decorator.decorator).partition("(")[0]


class Visitor(file_mutation.MutationVisitor):
    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Decorator):
            return True
        if isinstance(node, cst.ClassDef):
            return False
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return not all(_name(d) in KEPT for d in node.decorators)
        return bool(super()._skip_node_and_children(node))


def arrangement(
    function: cst.FunctionDef, mutants: Any, class_name: str | None
) -> tuple[list[Any], Sequence[str]]:
    """The original, the mutants and the trampoline, which alone is decorated."""
    bare = function.with_changes(decorators=())
    nodes, names = undecorated(bare, mutants, class_name)
    if not function.decorators:
        return list(nodes), names
    *copies, trampoline, _, rename = nodes  # without the signature, which properties have not
    if [_name(d) for d in function.decorators] == ["staticmethod"]:
        own = f"{class_name}.{_mangled(function, class_name)}"
        call = f"_mutmut_trampoline({own}__mutmut_orig, {own}__mutmut_mutants, args, kwargs)"
        trampoline = cst.parse_statement(
            f"def {function.name.value}(*args, **kwargs):\n    return {call}\n"
        )
    return [*copies, trampoline.with_changes(decorators=function.decorators), rename], names


undecorated = file_mutation.function_trampoline_arrangement


# ---- runs that go on where they stopped

make_mutants = command.create_mutants_for_file


def make_or_keep_mutants(path: Path, target: Path) -> Any:
    """Keeps the results that are there: `start` has removed those of other sources or tests."""
    known = command.SourceFileMutationData(path=path)
    known.load()
    result = make_mutants(path, target)
    new = command.SourceFileMutationData(path=path)
    new.load()
    new.exit_code_by_key.update(known.exit_code_by_key)
    new.save()
    return result


def start() -> None:
    """Makes WORK with links to what is copied; empties it if sources or tests are others."""
    files = sorted(p for name in (*MUTATED, *TESTS, "tests/mutants.py") for p in ROOT.glob(name))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    note = WORK / "key"
    if not note.is_file() or note.read_text() != key:
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        for name in COPIED:
            (WORK / name).symlink_to(ROOT / name)
        note.write_text(key)
    os.chdir(WORK)


# ---- the score


def score() -> dict[str, Any]:
    """Mutants, those seen, and those that survived, by file."""
    files: dict[str, Any] = {}
    for path in sorted(command.walk_source_files()):
        if mutmut.config.should_ignore_for_mutation(path):
            continue
        data = command.SourceFileMutationData(path=path)
        data.load()
        states = {k: command.status_by_exit_code[v] for k, v in data.exit_code_by_key.items()}
        alive = [name for name, state in states.items() if state in UNSEEN]
        files[str(path)] = {
            "mutants": len(states),
            "seen": len(states) - len(alive),
            "survivors": [_change(name, path) for name in alive],
        }
    mutants, seen = (sum(f[what] for f in files.values()) for what in ("mutants", "seen"))
    return {"score": round(seen / mutants, 4), "mutants": mutants, "seen": seen, "files": files}


def _change(name: str, path: Path) -> str:
    """One line: the function, and what the mutant changes in it."""
    lines = command.get_diff_for_mutant(name, path=path).splitlines()
    changed = [" ".join(x.split()) for x in lines if x[:1] in "+-" and x[:3] not in ("---", "+++")]
    function, _ = command.orig_function_and_class_names_from_key(name)
    return f"{function}: {'  '.join(changed)}"


def main(names: Sequence[str]) -> None:
    start()
    mutmut.config = Config(
        also_copy=[Path(name) for name in COPIED if name != "salt_hls"],
        do_not_mutate=[],
        max_stack_depth=-1,
        debug=False,
        paths_to_mutate=[Path("salt_hls")],
        tests_dir=[*TESTS, *NOT_RUN],
    )
    file_mutation.MutationVisitor = Visitor
    file_mutation.function_trampoline_arrangement = arrangement
    command.create_mutants_for_file = make_or_keep_mutants
    # A limit of CPU time remains; this one takes any mutant's estimate, and machines may be busy.
    command.timeout_checker = lambda mutants: lambda: None
    pytest.Item._nodeid = property(lambda item: item.nodeid)  # removed from pytest, used by mutmut
    command._run(tuple(names), None)
    result = score()
    SCORE.write_text(json.dumps(result, indent=1) + "\n")
    share = f"{result['seen']} of {result['mutants']} mutants seen, {result['score']:.1%}"
    sys.stdout.write(f"{share}: {SCORE}\n")
    if result["score"] < LEAST:
        sys.exit(f"make mutants: the tests must see {LEAST:.0%}")


if __name__ == "__main__":
    main(sys.argv[1:])

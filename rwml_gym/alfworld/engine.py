"""The text engine of ALFWorld games: textworld's `PddlEnv`, with the work that repeats done once a game.

Stock textworld translates a game's PDDL four times before the first action and re-parses its text templates at every
step. `Engine` gives the same text and the same admissible commands, letter for letter, from one translation. It is a
subclass: no library is patched, so stock environments in the same process stay stock.

Engines cannot be used from several threads (the parsers and the translator underneath keep global state); several
engines taking turns in one thread, and engines in several processes, are fine.
"""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import fast_downward
import textworld
from textworld.envs.pddl import PddlEnv
from textworld.envs.pddl import logic as pddl_logic
from textworld.logic import Proposition, Type, Variable

from rwml_gym.alfworld.game import entity_names
from rwml_gym.alfworld.grammar import Logic, is_static

__all__ = ["Engine"]

GAMES_KEPT = 64
"""Translations kept in memory by a process; one takes about 2 MB."""

_libraries: list[Any] = []
"""Planner libraries nobody uses at the moment. Each is a private copy of about 35 MB on an unlinked file that can never
be given back (closing it crashes the process at exit), so engines hand theirs on."""


@contextmanager
def translating() -> Iterator[None]:
    """Around `fast_downward.pddl2sas`: puts back what it replaces, and pauses the garbage collector.

    It replaces ``sys.argv`` and ``sys.stdout``. It makes hundreds of thousands of small objects that all stay alive
    until it returns, and half its time would go into scanning them for garbage.
    """
    argv, stdout, collecting = sys.argv, sys.stdout, gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        sys.argv, sys.stdout = argv, stdout
        if collecting:
            gc.enable()


class CompiledGame:
    """What the engine needs to know about a game and what never changes while it is played."""

    def __init__(self, domain: str, grammar: str, problem: str) -> None:
        """Translates the PDDL and parses the grammar.

        Args:
            domain: PDDL domain.
            grammar: ``.twl2`` text grammar.
            problem: PDDL problem.
        """
        self.problem = problem
        self.domain = domain
        self.logic = Logic(domain, grammar)
        with translating():
            task, sas = fast_downward.pddl2sas(domain, problem)
        self.sas: bytes = sas.encode("utf-8")
        self.actions = {action.name: action for action in task.actions}
        self.type_of = {entity.name: entity.type_name for entity in task.objects}
        # The domain declares "object", which the translator has as the root already: the first one counts, as in stock.
        for kind in {kind.name: kind for kind in reversed(task.types)}.values():
            self.logic.types.add(Type(kind.name, kind.supertype_names))
        # Numeric facts (distances, costs) are left out: no text asks for them.
        self.declared_facts: list[Proposition] = [
            Proposition(atom.predicate, [Variable(name, self.type_of[name]) for name in atom.args])
            for atom in task.init
            if isinstance(atom, fast_downward.translate.pddl.conditions.Atom) and atom.predicate != "="
        ]
        self.planner_facts: list[Proposition] | None = None
        fluents = {effect.literal.predicate for action in task.actions for effect in action.effects}
        fluents |= {axiom.name for axiom in task.axioms}
        self.static_commands = {
            name for name, action in self.logic.actions.items() if is_static(action.template, frozenset(fluents))
        }
        self.commands: dict[int, str] = {}

    @cached_property
    def planner_sas(self) -> bytes:
        """The second translation, which only the planner reads."""
        with translating():
            return fast_downward.pddl2sas(self.domain, self.problem, optimize=True)[1].encode("utf-8")


@lru_cache(maxsize=GAMES_KEPT)
def compile_game(domain: str, grammar: str, problem: str) -> CompiledGame:
    """A `CompiledGame`, remembered by its texts."""
    return CompiledGame(domain, grammar, problem)


class State(pddl_logic.PddlState):
    """The facts of a game in play; stock translates the PDDL twice to make one."""

    def __init__(self, library: Any, game: CompiledGame, with_planner: bool) -> None:
        """Starts the game in the planner library.

        Args:
            library: the planner library that holds the current state.
            game: what to play.
            with_planner: whether `replan` will be called.
        """
        self._facts: dict[Any, set[Proposition]] = defaultdict(set)
        self._vars_by_name: dict[str, Variable] = {}
        self._vars_by_type: dict[str, set[Variable]] = defaultdict(set)
        self._var_counts: Counter[str] = Counter()
        self._logic = game.logic
        self._actions = game.actions
        self.downward_lib = library
        self.pddl_problem = game.problem
        self.name2type = game.type_of

        library.load_sas(game.sas)
        if with_planner:
            library.load_sas_replan(game.planner_sas)
        if game.planner_facts is None:
            atoms = (pddl_logic.Atom * library.get_state_size())()
            library.get_state(atoms)
            facts = [atom.get_fact(self.name2type) for atom in atoms]
            game.planner_facts = [fact for fact in facts if not fact.is_negation]
        self.add_facts(game.declared_facts)
        self.add_facts(game.planner_facts)


class Engine(PddlEnv):
    """Plays one game at a time: `load`, `reset`, `step`, as any textworld environment, with ALFWorld's entity names.

    It stands for ``AlfredDemangler(PddlEnv(infos))`` of stock alfworld.
    """

    def __init__(self, infos: textworld.EnvInfos | None = None) -> None:
        """Makes an engine, from a planner library that another one has left if there is one.

        Args:
            infos: what `reset` and `step` report, besides the feedback, ``won`` and ``admissible_commands``.
        """
        infos = infos or textworld.EnvInfos(feedback=True, won=True, admissible_commands=True)
        super(PddlEnv, self).__init__(infos)  # PddlEnv's own would load one more library
        self.downward_lib = _libraries.pop() if _libraries else fast_downward.load_lib()
        self._hand_on_library = weakref.finalize(self, _libraries.append, self.downward_lib)
        self._hand_on_library.atexit = False

    def load(self, filename_or_data: str | Mapping[str, Any]) -> None:
        """Prepares a game; `reset` starts it.

        Args:
            filename_or_data: path of a ``game.tw-pddl``, or what is in one.
        """
        self._game_file: str | None = None
        if isinstance(filename_or_data, str):
            self._game_file = filename_or_data
            with open(filename_or_data, encoding="utf-8") as file:
                data = json.load(file)
        else:
            data = filename_or_data
        self._game_data = data
        self.walkthrough = data.get("walkthrough")
        self._game = compile_game(data["pddl_domain"], data["grammar"], data["pddl_problem"])
        self._logic = self._game.logic
        self._templates = sorted({action.template for action in self._logic.actions.values()})
        self._pddl_state: Any = self._fresh_state()
        self._entity_infos = self._get_entity_infos()
        names = entity_names(info.id for info in self._entity_infos.values())
        for info in self._entity_infos.values():
            info.name = names[info.id]

    def reset(self) -> textworld.GameState:
        """Starts the loaded game from its beginning."""
        self._pddl_state = self._fresh_state()
        self.prev_state = None
        self.state = textworld.GameState()
        self._last_action = None
        self._moves = 0
        self.state.feedback = self.state.raw = self._logic.grammar.derive("#intro#", self._context({}))
        self._gather_infos()
        if "walkthrough" in self.request_infos.extras:
            self.state["extra.walkthrough"] = self.walkthrough or self._pddl_state.replan(self._entity_infos)
        return self.state

    def close(self) -> None:
        """Hands the planner library on; the engine cannot be used afterwards."""
        self._hand_on_library()
        # by now the library may be another engine's: nothing here may reach it any more
        self.downward_lib = None
        self._pddl_state = None

    def _fresh_state(self) -> State:
        wants_walkthrough = "walkthrough" in self.request_infos.extras and not self.walkthrough
        return State(self.downward_lib, self._game, bool(self.request_infos.policy_commands or wants_walkthrough))

    def _context(self, mapping: Mapping[Any, Variable]) -> dict[str, Any]:
        return {
            "state": self._pddl_state,
            "facts": [],  # no symbol of a grammar reads them
            "variables": {placeholder.name: self._entity_infos[value.name] for placeholder, value in mapping.items()},
            "mapping": mapping,
            "entity_infos": self._entity_infos,
        }

    def _gather_infos(self) -> None:
        state = self.state
        state["command_templates"] = self._templates
        state["won"] = self._pddl_state.check_goal()
        state["lost"] = False
        state["_entity_infos"] = dict(self._entity_infos)
        state["_facts"] = list(self._pddl_state.facts)
        if self.request_infos.facts:
            state["facts"] = [self._get_human_readable_fact(fact) for fact in state["_facts"]]
        state["last_action"] = None
        state["_last_action"] = self._last_action
        state["_valid_actions"] = self._pddl_state.all_applicable_actions()
        state["_valid_commands"] = [self._command(action) for action in state["_valid_actions"]]
        # sorted, as in stock: the order must not depend on how the planner numbers its operators
        state["admissible_commands"] = sorted(set(state["_valid_commands"]))
        if self.request_infos.moves:
            state["moves"] = self._moves
        if self.request_infos.policy_commands:
            state["policy_commands"] = self._pddl_state.replan(self._entity_infos)

    def _command(self, action: Any) -> str:
        """The text of an applicable action, remembered by operator where the state has no part in it."""
        command = self._game.commands.get(action.id)
        if command is None:
            template = self._logic.grammar.derive(action.command_template, self._context(action.mapping))
            action.command_template = template
            command = template.format(**{name: info.name for name, info in self._entity_infos.items()})
            if action.name in self._game.static_commands:
                self._game.commands[action.id] = command
        return command

"""What predictions made to earn without knowing get from every reward: the table of docs/hacking.md.

    python benchmarks/hacking.py [--check] [--small] [--entities] [--transitions 120] [--judged 12]

Random players record generated ALFWorld games and τ²-bench's retail tasks. On three fifths of the games an attacker
learns (`rwml_gym.diagnostics.attacks`); on the others every attack is scored by every reward, beside honest references.
Prints the tables and writes them into docs/hacking.md; `--check` prints only. `--small` takes the hashing encoder, no
judge and few transitions: it shows that the script runs, and its numbers say nothing, so it never writes. `--entities`
compares the cosine with the distance `entities` at several thresholds, on ALFWorld alone, and prints only.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from tqdm import tqdm

import rwml_gym  # noqa: F401 (registers the ids)
from rwml_gym.agents.players.random_caller import RandomCallerAgent
from rwml_gym.diagnostics.attacks import ATTACKS, Attack, Knowledge, Knows, fill
from rwml_gym.diagnostics.perturbations.by_role import perturbations_for
from rwml_gym.diagnostics.perturbations.text import Perturbation, Pool
from rwml_gym.diagnostics.predictability import type_of
from rwml_gym.encoders.local import SentenceTransformerEncoder
from rwml_gym.reward.gap import GapReward, Gaps
from rwml_gym.reward.tags import split_prediction
from rwml_gym.text import shown
from rwml_gym.transitions import Transition, TransitionDataset
from rwml_gym.world_models.retrieval import RetrievalWorldModel
from rwml_gym.wrappers import RecordTransitions

Reward = Callable[[Sequence[str | None], Sequence[str], Sequence[str]], Gaps]

DOCS = Path(__file__).resolve().parents[1] / "docs" / "hacking.md"
BEGIN, END = "<!-- written by benchmarks/hacking.py -->", "<!-- end of what benchmarks/hacking.py wrote -->"
REFERENCES = ("truth", "truth reworded", "truth falsified", "retrieval", "retrieval, where wrong", "honest mistake")
BEST = Attack(
    "best template", "other games", "of its twelve templates the one that this reward paid most for", lambda *_: ""
)
GROUPS: tuple[Knows, ...] = ("nothing", "what is seen", "other games", "the truth")
ROWS = tuple(sorted((*ATTACKS.values(), BEST), key=lambda attack: GROUPS.index(attack.knows)))
LONGEST = 30  # steps of an episode
TRIED = 15  # transitions of a type that the best template is chosen on
RESAMPLES = 2_000
LEVEL = 0.005  # a cell is marked if so few of the resampled means are not above the honest mistake's
FEWEST = 5  # games that a mark needs
THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.5)  # of the distance `entities`
LENGTHS = (("no number", 0, 1), ("1 to 2 numbers", 1, 3), ("3 to 5", 3, 6), ("6 or more", 6, math.inf))


@dataclass(frozen=True)
class Table:
    """What each row earns in one world.

    Attributes:
        title: The world, and how much of it was scored.
        cells: By row and column, as printed.
        falsehoods: What each kind of falsified truth earns, by how many numbers the truth has.
        notes: Further findings, a sentence each.
        example: What each attack writes about one transition.
    """

    title: str
    cells: dict[str, dict[str, str]]
    falsehoods: dict[str, dict[str, str]]
    notes: list[str]
    example: dict[str, str]


def record_alfworld(games: int) -> list[Transition]:
    """Random play of generated games; without `help`, whose answer is always the same and teaches nothing."""
    env = RecordTransitions(gym.make("rwml_gym/ALFWorld-v0", max_episode_steps=LONGEST), history=LONGEST + 1)
    rng = random.Random(0)
    for seed in range(games):
        _, info = env.reset(seed=seed)
        ended = False
        while not ended:
            possible = [action for action in info["admissible_actions"] if action != "help"]
            # Kinds of commands first: by number, most of all commands go somewhere.
            kind = rng.choice(sorted({action.split()[0] for action in possible}))
            action = rng.choice([action for action in possible if action.split()[0] == kind])
            *_, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
    return env.transitions


def record_retail(tasks: int) -> list[Transition]:
    """A random caller's play of retail tasks."""
    made = gym.make("rwml_gym/Tau2-v0", domain="retail", split="base", max_episode_steps=LONGEST)
    env, names = RecordTransitions(made, history=LONGEST + 1), made.unwrapped.games.names  # type: ignore[attr-defined]
    agent = RandomCallerAgent(seed=0)
    for number in range(min(tasks, len(names))):
        observation, info = env.reset(seed=number, options={"game": names[number]})
        agent.reset([True])
        ended = False
        while not ended:
            (action,) = agent.act([observation], [info])
            observation, _, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
    return env.transitions


def choose(transitions: Sequence[Transition], limit: int, seed: int = 0) -> list[Transition]:
    """At most `limit`, of every type of action in turn, so that none makes up the table."""
    types: dict[str, list[Transition]] = defaultdict(list)
    for i in np.random.default_rng(seed).permutation(len(transitions)):
        types[type_of(transitions[i])].append(transitions[i])
    turns = itertools.zip_longest(*(types[name] for name in sorted(types)))
    return [transition for turn in turns for transition in turn if transition is not None][:limit]


def rewards(encoder: str, judge: Reward | None) -> dict[str, Reward]:
    """The rewards by column."""
    found: dict[str, Reward] = {
        "cosine": GapReward(encoder),
        "cosine, continuous": GapReward(encoder, shape="continuous"),
        "ROUGE": GapReward(encoder, gap="rouge"),
        "ROUGE, continuous": GapReward(encoder, gap="rouge", shape="continuous"),
        "exact": GapReward(encoder, gap="exact"),
    }
    return found if judge is None else {**found, "judge": judge}


def rewards_by_entities(encoder: str) -> dict[str, Reward]:
    """The cosine at its default, and the distance `entities` at several thresholds, by column."""
    return {
        "cosine": GapReward(encoder),
        **{f"entities {threshold:g}": GapReward(encoder, threshold, gap="entities") for threshold in THRESHOLDS},
    }


def read(attack: Attack, transition: Transition, known: Knowledge) -> str | None:
    """The prediction as a wrapper reads it out of what an agent writes."""
    return split_prediction(f"{transition.action} <next_state>{attack.make(transition, known)}</next_state>")[1]


def earned(score: Reward, said: Sequence[str | None], of: Sequence[Transition]) -> np.ndarray:
    """(n,) rewards of n predictions."""
    return score(said, [t.next_state for t in of], [t.role for t in of]).rewards


def perturbed(rules: Mapping[str, Perturbation], of: Sequence[Transition], pool: Pool) -> list[list[str]]:
    """What the rules that apply make of each transition's next state."""
    rng = np.random.default_rng(0)
    texts = [[rule(t, pool, rng) for rule in rules.values()] for t in of]
    return [[text for text in made if text.strip() and text != t.next_state] for made, t in zip(texts, of, strict=True)]


def mean_by_transition(score: Reward, said: Sequence[Sequence[str]], of: Sequence[Transition]) -> np.ndarray:
    """(n,) mean rewards of several texts about each transition; NaN where there is none."""
    pairs = [(i, text) for i, texts in enumerate(said) for text in texts]
    values = earned(score, [text for _, text in pairs], [of[i] for i, _ in pairs])
    places = np.array([i for i, _ in pairs], dtype=int)
    counts = np.bincount(places, minlength=len(of))
    with np.errstate(invalid="ignore"):
        return np.bincount(places, values, len(of)) / counts


def best_templates(score: Reward, fit: Sequence[Transition], known: Knowledge) -> dict[str, str]:
    """By type of action the template that this reward pays most for in the attacker's games."""
    types: dict[str, list[Transition]] = defaultdict(list)
    for transition in choose(fit, len(fit), seed=1):
        types[type_of(transition)].append(transition)
    best = {}
    for name, all_of in types.items():
        tried, templates = all_of[:TRIED], known.templates(all_of[0])
        means = [earned(score, [fill(template, t) for t in tried], tried).mean() for template in templates]
        best[name] = templates[int(np.argmax(means))]
    return best


def above(differences: np.ndarray, games: Sequence[str]) -> bool:
    """Whether the mean of differences is above 0 beyond the noise: a bootstrap over games, whose steps are alike."""
    valid = np.isfinite(differences)
    names, places = np.unique(np.array(games)[valid], return_inverse=True)
    if len(names) < FEWEST:
        return False
    sums, counts = np.bincount(places, differences[valid]), np.bincount(places)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    return bool(np.quantile((drawn @ sums) / (drawn @ counts), LEVEL) > 1e-9)


def measure(
    title: str, transitions: Sequence[Transition], columns: Mapping[str, Reward], encoder: str, limit: int, judged: int
) -> Table:
    """Scores references and attacks on the games that the attacker did not learn from.

    Args:
        title: What the world is called.
        transitions: Of at least two games.
        columns: The rewards; each but the judge is also the goal of an attack.
        encoder: Of retrieval and of the centres.
        limit: Transitions to score.
        judged: How many of them the judge is asked about.
    """
    fit, held_out = TransitionDataset(transitions).split_by_game(0.4)
    chosen, known = choose(held_out, limit), Knowledge(fit, encoder)
    rules, pool = perturbations_for(transitions), Pool(transitions)
    reworded, falsified = (perturbed(kind, chosen, pool) for kind in (rules.same, rules.different))
    retrieval = RetrievalWorldModel(fit, encoder).predict([t.history for t in chosen], [t.action for t in chosen])
    said = {name: [read(attack, t, known) for t in chosen] for name, attack in ATTACKS.items()}
    exact = GapReward("hashing", gap="exact")
    cells: dict[str, dict[str, str]] = {name: {} for name in (*REFERENCES, *(attack.name for attack in ROWS))}
    notes: list[str] = []
    for column, score in columns.items():
        of = chosen[:judged] if column == "judge" else chosen
        n, games = len(of), [t.game for t in of]
        truth = earned(score, [t.next_state for t in of], of)
        same, wrong = (mean_by_transition(score, texts[:n], of) for texts in (reworded, falsified))
        retrieved = earned(score, retrieval[:n], of)
        missed = np.where(earned(exact, retrieval[:n], of) == 1, np.nan, retrieved)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing: NaN is what is meant
            mistake = np.nanmean([wrong, missed], axis=0)
            for row, values in zip(REFERENCES, (truth, same, wrong, retrieved, missed, mistake), strict=True):
                cells[row][column] = f"{np.nanmean(values):.2f}"
        if column == "judge":
            notes.append(_judge_note(same, wrong))
        else:
            best = best_templates(score, fit, known)
            said[BEST.name] = [fill(best.get(type_of(t), known.centre), t) for t in of]
        for attack in tqdm(ROWS, desc=f"{title}, {column}"):
            texts = said[attack.name][:n]
            values = earned(score, texts, of)
            where_wrong = np.where(earned(exact, texts, of) == 1, np.nan, values)
            mark = "▲" * above(values - mistake, games) + "!" * above(where_wrong - mistake, games)
            cells[attack.name][column] = f"{values.mean():.2f}{' ' * bool(mark)}{mark}"
    games_scored = len({t.game for t in chosen})
    title = f"{title}: {len(chosen)} transitions of {games_scored} games, learnt from {len(fit.games)} others"
    if encoder != "hashing":
        notes += _window_note(chosen, said["truth in noise"], columns)
    falsehoods = by_kind(rules.different, held_out, pool, columns)
    return Table(title, cells, falsehoods, notes, {a.name: a.make(chosen[0], known) for a in ATTACKS.values()})


def by_kind(
    rules: Mapping[str, Perturbation], of: Sequence[Transition], pool: Pool, columns: Mapping[str, Reward]
) -> dict[str, dict[str, str]]:
    """What falsified truths earn from the binary rewards, by kind and by the length of the truth.

    Each distinct state counts once, or the shortest answers would make up the table.

    Returns:
        By rule, then by column; a cell is a mean and the number of states.
    """
    states = list({t.next_state: t for t in of}.values())
    names = [name for name in ("cosine", "ROUGE", "exact") if name in columns]
    lengths = [("", 0, math.inf), *((f", {title}", low, high) for title, low, high in LENGTHS)]
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, str]] = {}
    for rule, perturb in rules.items():
        made = [(t, text) for t in states if (text := perturb(t, pool, rng)).strip() and text != t.next_state]
        found[rule] = {}
        for name in names:
            values = earned(columns[name], [text for _, text in made], [t for t, _ in made])
            for title, low, high in lengths if name == "cosine" else lengths[:1]:
                chosen = [v for (t, _), v in zip(made, values, strict=True) if low <= numbers_in(t.next_state) < high]
                found[rule][f"{name}{title}"] = f"{np.mean(chosen):.2f} ({len(chosen)})" if chosen else ""
    return found


def numbers_in(text: str) -> int:
    """How many numbers a text has."""
    return len(re.findall(r"\d+", text))


def _judge_note(same: np.ndarray, wrong: np.ndarray) -> str:
    pairs = [(a > b) + (a == b) / 2 for a, b in zip(same, wrong, strict=True) if np.isfinite(a) and np.isfinite(b)]
    return (
        f"Of {len(same)} judged transitions, {len(pairs)} have both a reworded and a falsified state; the judge "
        f"prefers the reworded one in {np.mean(pairs) if pairs else float('nan'):.0%} of them (50 % is chance)."
    )


def _window_note(of: Sequence[Transition], noisy: Sequence[str | None], columns: Mapping[str, Reward]) -> list[str]:
    """What the window of the cosine's encoder hides: the rest of a long text."""
    model = SentenceTransformerEncoder()
    window = model.max_tokens or 0
    tokens = [len(model.model.tokenizer(t.next_state, verbose=False)["input_ids"]) for t in of]
    long = [i for i, length in enumerate(tokens) if length > window]
    if not long:
        return [f"No state is longer than the {window} tokens that the cosine's encoder reads."]
    paid = [earned(columns[c], [noisy[i] for i in long], [of[i] for i in long]).mean() for c in ("cosine", "ROUGE")]
    return [
        f"{len(long)} of {len(of)} states are longer than the {window} tokens that the cosine's encoder reads; on "
        f"these 'truth in noise' earns {paid[0]:.2f} by the cosine and {paid[1]:.2f} by ROUGE."
    ]


def escaped(text: str, width: int = 44) -> str:
    """A text in one line of a Markdown table: nothing in it acts as markup."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~$-])", r"\\\1", shown(text, width).replace("&", "&amp;"))


def markdown(tables: Sequence[Table]) -> str:
    """The tables, and what the attacks are, as Markdown."""
    lines: list[str] = []
    for table in tables:
        shown_columns = list(table.cells["truth"])
        lines += [f"### {table.title}", "", f"| prediction | knows | {' | '.join(shown_columns)} |"]
        lines.append(f"| --- | --- |{' ---: |' * len(shown_columns)}")
        knows = {attack.name: attack.knows for attack in ROWS}
        for name, cells in table.cells.items():
            label = f"*{name}*" if name in REFERENCES else name
            lines.append(f"| {label} | {knows.get(name, '')} | {' | '.join(cells[c] for c in shown_columns)} |")
        lines += ["", *(f"- {note}" for note in table.notes), ""]
        kinds = list(next(iter(table.falsehoods.values())))
        lines += [f"| falsified truth | {' | '.join(kinds)} |", f"| --- |{' ---: |' * len(kinds)}"]
        made = {rule: cells for rule, cells in table.falsehoods.items() if any(cells.values())}
        lines += [f"| {rule} | {' | '.join(cells[k] for k in kinds)} |" for rule, cells in made.items()]
        lines.append("")
    example = tables[0].example
    lines += ["### What the attacks write", "", "| attack | what it writes | for example |", "| --- | --- | --- |"]
    lines += [f"| {a.name} | {a.what} | {escaped(example.get(a.name, ''))} |" for a in ROWS]
    return "\n".join(lines)


def rewritten(document: str, tables: str) -> str:
    """The document with new tables between its markers."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"Expected {BEGIN} and {END} in {DOCS.name}, actual: not both. Put them where tables belong.")
    return f"{before}{begin}\n\n{tables}\n\n{end}{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="print only")
    parser.add_argument("--small", action="store_true", help="hashing encoder, no judge, few transitions; prints only")
    parser.add_argument("--entities", action="store_true", help="the distance `entities` on ALFWorld; prints only")
    parser.add_argument("--transitions", type=int, default=120, help="of each world")
    parser.add_argument("--judged", type=int, default=8, help="of these the judge is asked about")
    options = parser.parse_args(arguments)
    encoder, games, limit = ("hashing", 8, 10) if options.small else ("all-MiniLM-L6-v2", 60, options.transitions)
    if options.entities:
        columns, recorded = rewards_by_entities(encoder), {"ALFWorld": record_alfworld(games)}
    else:
        columns = rewards(encoder, None if options.small else _judge())
        recorded = {"ALFWorld": record_alfworld(games), "τ²-bench, retail": record_retail(games)}
    tables = [measure(name, of, columns, encoder, limit, options.judged) for name, of in recorded.items()]
    text = markdown(tables)
    print(text)
    if not (options.check or options.small or options.entities):
        DOCS.write_text(rewritten(DOCS.read_text(encoding="utf-8"), text), encoding="utf-8")


def _judge() -> Reward:
    from rwml_gym.agents.language.judge import JudgeReward
    from rwml_gym.agents.language.models import load_model

    # float32: bfloat16's logits are too coarse to tell a P(Yes) of 0.50 from one of 0.55.
    return JudgeReward(*load_model("SmolLM2-135M-Instruct", "float32"), shape="continuous", max_characters=300)


if __name__ == "__main__":
    main()

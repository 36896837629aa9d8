"""tau2 itself beside our environment: its orchestrator plays the same messages, its evaluator scores them."""

from __future__ import annotations

import os
import pickle
import random
from functools import cache
from typing import Any

from rwml_gym.envs.tau2.actions import Speech, ToolRequest, parse_action
from rwml_gym.envs.tau2.domains import load_domain, load_task
from rwml_gym.envs.tau2.package import load


def functional(name: str, arguments: dict[str, Any]) -> str:
    """A call as text."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def trajectory(domain: str, task_id: str, kind: str, seed: int = 0, steps: int = 12) -> list[str]:
    """What an agent says: `gold`, `dropped` (all gold actions but the last), `no-op`, `transfer` or `random`."""
    task = load_task(domain, task_id)
    criteria = task.evaluation_criteria
    if kind == "random":
        return random_actions(domain, task, random.Random(f"{task_id} {seed}"), steps)
    actions = {"gold": criteria.actions or [], "dropped": (criteria.actions or [])[:-1]}.get(kind, [])
    said = []
    for action in actions:
        call = functional(action.name, action.arguments)
        said.append(f"Please run {call} for me." if action.requestor == "user" else call)
    if kind == "transfer":
        said.append("transfer_to_human_agents(summary='x')")
    if kind in ("gold", "dropped") and criteria.communicate_info:
        said.append(f"Here it is: {', '.join(criteria.communicate_info)}.")
    return [*said, "Goodbye"]


def random_actions(domain: str, task: Any, rng: random.Random, steps: int) -> list[str]:
    """Calls of random tools with arguments found in the gold actions of the domain, and some words."""
    specs, user_specs = load_domain(domain).tools, load_domain(domain).user_tools
    values = argument_values(domain)
    said = []
    for _ in range(rng.randrange(2, steps)):
        if rng.random() < 0.2:
            said.append(rng.choice(["Could you tell me more?", "It is 1,000 dollars.", "Sure (soon)", "50"]))
            continue
        to_user = bool(user_specs) and rng.random() < 0.4
        spec = rng.choice(list((user_specs if to_user else specs).values()))
        arguments = {
            name: rng.choice(values.get(name) or ["x"])
            for name in spec.order
            if name in spec.required or rng.random() < 0.5
        }
        if task.evaluation_criteria.actions and rng.random() < 0.4:
            gold = rng.choice(task.evaluation_criteria.actions)
            to_user = gold.requestor == "user"
            spec, arguments = (user_specs if to_user else specs)[gold.name], gold.arguments
        call = functional(spec.name, arguments)
        said.append(f"Please run {call} now." if to_user else call)
    return [*said, "Goodbye"]


@cache
def argument_values(domain: str) -> dict[str, list[Any]]:
    """Values of each argument name in the gold actions of a domain's base split."""
    from rwml_gym.envs.tau2.domains import splits

    values: dict[str, list[Any]] = {}
    for task_id in splits(domain)["base"]:
        for action in load_task(domain, task_id).evaluation_criteria.actions or []:
            for name, value in action.arguments.items():
                values.setdefault(name, []).append(value)
    return values


@cache
def stock() -> Any:
    """tau2's registry, orchestrator and evaluator; importing them imports litellm."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    for module in ("registry", "orchestrator.orchestrator", "evaluator.evaluator", "gym.gym_agent"):
        load(module)
    import tau2

    return tau2


@cache
def _databases(domain: str) -> bytes:
    world = stock().registry.registry.get_env_constructor(domain)()
    return pickle.dumps((world.tools.db, world.user_tools.db if world.user_tools is not None else None), -1)


def as_in_a_fresh_process() -> None:
    """Mends what tau2 shares by mistake: breaking the VPN of one phone spoils the default of all later ones."""
    details = load("domains.telecom.user_data_model").VpnDetails
    performance = load("domains.telecom.user_data_model").PerformanceLevel.EXCELLENT
    load("domains.telecom.user_tools").TelecomUserTools.default_vpn_details = details(
        server_address="192.168.1.1", protocol="OpenVPN", server_performance=performance
    )


def stock_world(domain: str, solo_mode: bool = False) -> Any:
    """A fresh stock environment, its database read from memory: from disk it takes a second."""
    database, user_database = pickle.loads(_databases(domain))
    arguments = {} if user_database is None else {"user_db": user_database}
    return stock().registry.registry.get_env_constructor(domain)(db=database, solo_mode=solo_mode, **arguments)


def stock_score(conversation: Any, domain: str, solo: bool = False) -> Any:
    """What tau2's evaluator gives a conversation: its `RewardInfo`."""
    tau2 = stock()
    messages = conversation.messages
    run = tau2.data_model.simulation.SimulationRun(
        id="x",
        task_id=conversation.task.id,
        start_time="0",
        end_time="1",
        duration=1.0,
        termination_reason=conversation.ended,
        messages=messages,
    )
    evaluator = tau2.evaluator.evaluator
    registry = evaluator.registry

    class Fast:
        """The registry, with worlds made from memory."""

        def get_env_constructor(self, name: str) -> Any:
            return lambda solo_mode=False: stock_world(name, solo_mode)

    evaluator.registry = Fast()
    as_in_a_fresh_process()
    try:
        return evaluator.evaluate_simulation(run, conversation.task, evaluator.EvaluationType.ALL, solo, domain)
    finally:
        evaluator.registry = registry


def orchestrate(domain: str, task_id: str, said: list[str], user: Any) -> tuple[list[Any], str | None]:
    """Lets tau2's own orchestrator play what an agent says, with one of our users.

    Returns:
        All messages, and tau2's reason for the end.
    """
    tau2 = stock()
    message = tau2.data_model.message
    queue = list(said)

    class Agent(tau2.agent.base.LocalAgent):
        def get_init_state(self, message_history: Any = None) -> None:
            return None

        def generate_next_message(self, told: Any, state: Any) -> Any:
            request = parse_action(queue.pop(0), load_domain(domain).tools)
            if isinstance(request, Speech):
                return message.AssistantMessage(role="assistant", content=request.text), state
            assert isinstance(request, ToolRequest), request
            call = message.ToolCall(name=request.name, arguments=dict(request.arguments))
            return message.AssistantMessage(role="assistant", tool_calls=[call]), state

        @classmethod
        def is_stop(cls, told: Any) -> bool:
            return "###STOP###" in (told.content or "")

    class User(tau2.user.user_simulator.UserSimulator):
        def get_init_state(self, message_history: Any = None) -> Any:
            user.begin(list(message_history or []))
            return tau2.user.base.UserState(system_messages=[], messages=[])

        def generate_next_message(self, told: Any, state: Any) -> Any:
            return user.reply(getattr(told, "tool_messages", [told])), state

    task = load_task(domain, task_id)
    as_in_a_fresh_process()
    orchestrator = tau2.orchestrator.orchestrator.Orchestrator(
        domain=domain,
        agent=Agent(tools=[], domain_policy=""),
        user=User(instructions=task.user_scenario),
        environment=stock_world(domain),
        task=task,
        max_steps=1000,
    )
    orchestrator.initialize()
    while not orchestrator.done and (queue or orchestrator.to_role != tau2.orchestrator.orchestrator.Role.AGENT):
        orchestrator.step()
        over = orchestrator.to_role != tau2.orchestrator.orchestrator.Role.ENV
        if over and orchestrator.num_errors >= orchestrator.max_errors and not orchestrator.done:
            return orchestrator.trajectory, "too_many_errors"
    return orchestrator.trajectory, orchestrator.termination_reason and orchestrator.termination_reason.value

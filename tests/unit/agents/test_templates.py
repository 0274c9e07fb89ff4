from datetime import date

import pytest

from godoty_service.agents.templates import MAX_PLACEHOLDERS, MissingValue, Template, TemplateValues

VALUES = TemplateValues(today=date(2026, 3, 1), user="ann", variables={"plan": "pro", "Empty_1": ""})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{today}}|{{user}}|{{variables.plan}}|{{variables.Empty_1}}|", "2026-03-01|ann|pro||"),
        ("{{ today }}{{\ttoday\n}}", "2026-03-012026-03-01"),
        ("{today} {{}} {{ }} {{1}} {{'a'}} {{a b}} {{{", "{today} {{}} {{ }} {{1}} {{'a'}} {{a b}} {{{"),
        ("{{{today}}}", "{2026-03-01}"),
        ('{"a": {"b": {{today}}}}', '{"a": {"b": 2026-03-01}}'),
        ("{{of_a_later_build}}", "{{of_a_later_build}}"),
    ],
)
def test_placeholders_are_replaced_and_other_text_is_not(text: str, expected: str) -> None:
    """Names in double braces, with or without space around them."""
    assert Template(text).render(VALUES) == expected


def test_values_are_not_searched_for_placeholders() -> None:
    """What a caller sends is text."""
    values = TemplateValues(today=date(2026, 3, 1), user="{{variables.plan}}", variables={"plan": "{{today}}"})

    assert Template("{{user}} {{variables.plan}}").render(values) == "{{variables.plan}} {{today}}"


@pytest.mark.parametrize(
    ("text", "field"), [("{{variables.other}}", "variables.other"), ("{{user}}", "user"), ("{{ user }}", "user")]
)
def test_missing_value_names_the_field_of_the_request(text: str, field: str) -> None:
    """An empty variable is a value; an empty user is none."""
    with pytest.raises(MissingValue) as caught:
        Template(text).render(TemplateValues(today=date(2026, 3, 1), user=None, variables={"plan": ""}))

    assert caught.value.field == field


@pytest.mark.parametrize(
    "text",
    [
        *("{{now}}", "{{variables}}", "{{variables.}}", "{{variables.a.b}}", "{{variables.a-b}}", "{{user.name}}"),
        *("{{ env.HOME }}", "{{today.__class__}}", "{{today}}" * (MAX_PLACEHOLDERS + 1)),
    ],
)
def test_unknown_placeholder_is_found_by_the_check(text: str) -> None:
    """A definition with it is refused; the text says what there is."""
    with pytest.raises(ValueError, match="must "):
        Template(text).check()


def test_known_placeholders_pass_the_check() -> None:
    """As many as there may be."""
    Template("{{today}}" * (MAX_PLACEHOLDERS - 2) + "{{user}} {{variables.a_1}} {{1}} {{").check()

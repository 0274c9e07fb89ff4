"""The calculator tool."""

from strands import tool

from godoty_service.agents.tools.arithmetic import evaluate, format_number


@tool
async def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression; exact for + - * / // % and whole powers.

    Operators: + - * / // % ** and parentheses. Functions: sqrt, abs, round(x, digits), min, max, floor, ceil,
    log(x, base) (natural without a base), sin, cos (radians). Constants: pi, e.

    Args:
        expression: The expression, such as "(1.1 + 2.2) * 3" or "sqrt(2) ** 2".
    """
    return format_number(evaluate(expression))

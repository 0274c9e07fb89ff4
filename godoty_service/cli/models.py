"""`godoty models`: the models that a tenant may use."""

from typing import TYPE_CHECKING, Annotated

import typer

from godoty_service.cli.context import err, out, print_table, with_provider
from godoty_service.cli.formats import Format, FormatOption, Value, print_csv, print_json

if TYPE_CHECKING:
    from godoty.v1 import model_pb2

    from godoty_service.bootstrap.components import Components
    from godoty_service.bootstrap.provider import ProviderComponents

_KEYS = (
    *("model_id", "input_usd", "output_usd", "context_length", "max_output_tokens", "input_modalities"),
    *("output_modalities", "tools", "reasoning", "structured_output", "alias_of"),
)
_COLUMNS = (
    *("model", "input USD", "output USD", "context", "output", "reads", "writes", "tools", "reasoning"),
    *("structured output", "alias of"),
)


def models(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    *,
    shape: FormatOption = Format.TABLE,
) -> None:
    """Print the models that a tenant may use, as AgentService.ListModels; prices are in US dollars per token."""
    from godoty_service.rpc.conversations.model_codec import allowed_models, model_messages  # noqa: PLC0415 - `godoty health` does not need it

    async def work(components: "Components", provider: "ProviderComponents") -> None:
        await components.tenancy.tenants.require(tenant)
        await provider.oracle.load()
        catalogue, age = provider.oracle.current, provider.oracle.age()
        if catalogue is None or age is None:
            raise ValueError("no server has fetched a catalogue yet: start one, or use `godoty prices --accept`")
        policy = await components.tenancy.policies.read(tenant)
        found = await allowed_models(catalogue, policy, limit=len(catalogue.models))
        rows = [_row(each) for each in await model_messages(catalogue, found, now=components.clock())]
        match shape:
            case Format.JSON:
                print_json([dict(zip(_KEYS, row, strict=True)) for row in rows])
            case Format.CSV:
                print_csv(_KEYS, rows)
            case Format.TABLE:
                print_table(_COLUMNS, rows)
        notes = out if shape is Format.TABLE else err
        notes.print(f"{len(rows)} of {len(catalogue.models)} models; the provider confirmed the list {age:.0f} s ago")

    with_provider(work)


def _row(model: "model_pb2.Model") -> tuple[Value, ...]:
    """Return the values of a model in the order of `_KEYS`; None: unknown."""

    def known(message: "model_pb2.Model | model_pb2.ModelPrices", name: str) -> Value:
        value = getattr(message, name) if message.HasField(name) else None
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value

    return (
        model.model_id,
        known(model.prices, "input_usd"),
        known(model.prices, "output_usd"),
        known(model, "context_length"),
        known(model, "max_output_tokens"),
        ", ".join(model.input_modalities) or None,
        ", ".join(model.output_modalities) or None,
        known(model, "tools"),
        known(model, "reasoning"),
        known(model, "structured_output"),
        model.alias_of or None,
    )

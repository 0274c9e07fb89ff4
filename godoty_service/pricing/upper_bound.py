"""The upper bound of a model call's cost, computed before it is made: the amount to reserve.

Input: a token is never shorter than one UTF-8 byte, so the bytes of the request body plus
`TEMPLATE_TOKENS` bound the tokens; each is charged at the dearest rate (prompt, cache read, cache write
of either kind). Output: the request's limit if the model honours one, else the model's own, else its
context length; reasoning is part of it, but below a limit of 2,048 the least reasoning budget of 1,024 may come on
top. With `provider.max_price`, its two prices count together. Every override that could apply, at any time, counts, and
so does the dearest of all given models and providers: the bound holds for any of them.

With server tools a request has several answers: `server_tools.py` has what they and the tools' fees can add. Images and
documents are no text: they count as `attached.py` says, at the dearest rate and in the input of every answer, and their
bytes are not part of the request's.

It does not cover fees without a counter (plugins other than the parser of documents), video, service tiers, providers
whose prices were not given (let the request carry `provider.max_price`), a normalising tokenizer that lengthens the
text first, or the last bits that a provider loses by adding in binary.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal, DecimalException
from itertools import count

from godoty_service.pricing import money
from godoty_service.pricing.attached import NOTHING_ATTACHED, AttachedInput
from godoty_service.pricing.catalogue import CatalogueModel, Endpoint, EndpointPrices
from godoty_service.pricing.server_tools import NO_SERVER_TOOLS, ServerToolBound
from godoty_service.pricing.unit_prices import UnitPrices

# Tokens that a provider may put around the request: chat templates, instructions for tool use, and hidden
# system prompts (the largest recorded: grok-4 counted 687 tokens for a one-line request).
TEMPLATE_TOKENS = 2048

# OpenAI refuses a smaller limit, and gateways that speak to it raise a request's to this.
LEAST_OUTPUT_LIMIT = 16

# OpenRouter gives a reasoning model at least this many tokens for it, and requires `max_tokens` to be above them.
LEAST_REASONING = 1024

# The divisor of a context for its part that is always available to the output: the bytes of a long request may seem to
# fill the context, but it has fewer tokens than bytes.
_MIN_OUTPUT_DIVISOR = 4


def upper_bound(
    *,
    request_bytes: int,
    max_output_tokens: int | None,
    models: Iterable[CatalogueModel],
    endpoint_prices: Iterable[EndpointPrices] = (),
    web_searches: int = 0,
    audio_input: bool = False,
    max_price: Mapping[str, Decimal] | None = None,
    server_tools: ServerToolBound = NO_SERVER_TOOLS,
    attached: AttachedInput = NOTHING_ATTACHED,
) -> Decimal | None:
    """Return the upper bound of one request's cost in US dollars; None: there is no finite one.

    Args:
        request_bytes: The length of the body as it is sent, without images and documents.
        max_output_tokens: The limit that the request carries, if any.
        models: Every entry that may serve: `Catalogue.offers` of the model and of each fallback.
        endpoint_prices: The known prices of the providers for these models.
        web_searches: The number of native searches that the request allows.
        audio_input: Whether the request carries audio.
        max_price: The prices per token that the request permits, "prompt" and "completion": any provider that charges
            no more than both may serve, so both count together, even if no known offer has the two.
        server_tools: What the request's server tools can use.
        attached: The images and documents of the request.

    Raises:
        ValueError: A size is negative.
    """
    if min(request_bytes, max_output_tokens or 0, web_searches) < 0:
        raise ValueError("sizes cannot be negative")
    input_tokens = request_bytes + TEMPLATE_TOKENS + attached.tokens
    offers: list[CatalogueModel | Endpoint] = [
        *models,
        *(entry for listed in endpoint_prices for entry in listed.endpoints),
    ]
    permitted = [
        (rates, tokens)
        for offer in offers
        for tokens in [_output_tokens(offer, max_output_tokens)]
        for rates in offer.prices.variants(max_prompt_tokens=server_tools.input_tokens(input_tokens, tokens or 0))
    ]
    if max_price is not None:
        permitted = _crossed(permitted, max_price)
    bounds = [
        _bound(
            rates,
            input_tokens,
            output_tokens,
            web_searches,
            audio_input=audio_input,
            server_tools=server_tools,
            attached=attached,
        )
        for rates, output_tokens in permitted
    ]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if known and len(known) == len(bounds) else None


def _crossed(
    permitted: list[tuple[UnitPrices, int | None]], max_price: Mapping[str, Decimal]
) -> list[tuple[UnitPrices, int | None]]:
    """Return each offer with the dearest permitted prices and the longest output of all offers."""
    sizes = [size for _, size in permitted]
    longest = None if None in sizes else max((size for size in sizes if size is not None), default=None)
    every = [rates for rates, _ in permitted]
    prompt = _dearest(max_price.get("prompt"), *(rates.prompt for rates in every))
    completion = _dearest(max_price.get("completion"), *map(_output_rate, every))
    request = _dearest(*(rates.request for rates in every))
    return [
        (rates if _unknown(rates) else replace(rates, prompt=prompt, completion=completion, request=request), longest)
        for rates in every
    ]


def _unknown(rates: UnitPrices) -> bool:
    return rates.prompt is None or rates.completion is None


def output_limit(*, request_bytes: int, models: Iterable[CatalogueModel]) -> int | None:
    """Return the largest output limit that all of these models accept; None: it is not known.

    A provider refuses a request whose input and limit together do not fit the context.

    Args:
        request_bytes: The length of the body as it is sent.
        models: Every entry that may serve.
    """
    limits = [_available_output(model, request_bytes + TEMPLATE_TOKENS) for model in models]
    return min((limit for limit in limits if limit is not None), default=None)


def largest_limit(bound: Callable[[int], Decimal | None], *, least: int, most: int, amount: Decimal) -> int | None:
    """Return the largest output limit whose bound is within an amount; None: even the least one's is not.

    Args:
        bound: Returns the upper bound of the cost for an output limit; it never falls as the limit grows.
        least: The smallest useful limit.
        most: The largest wanted limit.
        amount: The amount in US dollars.
    """
    low, high = bound(least), bound(most)
    if high is not None and high <= amount:
        return most
    if low is None or high is None or low > amount:
        return None
    fitting, refused = least, most
    for step in count():
        if refused - fitting <= 1:
            break
        # Bounds are nearly linear, so two guesses find nearly all limits; every third step halves the rest.
        share = (amount - low) / (high - low) if (step + 1) % 3 else Decimal("0.5")  # a ratio, not an amount
        limit = fitting + min(max(int(share * (refused - fitting)), 1), refused - fitting - 1)
        cost = bound(limit)
        if cost is None:
            return None
        if cost <= amount:
            fitting, low = limit, cost
        else:
            refused, high = limit, cost
    return fitting


def _available_output(model: CatalogueModel, input_tokens: int) -> int | None:
    if model.context_length is None:
        return model.max_completion_tokens
    available = max(model.context_length - input_tokens, model.context_length // _MIN_OUTPUT_DIVISOR)
    return min(available, model.max_completion_tokens or available)


def _output_tokens(offer: CatalogueModel | Endpoint, max_output_tokens: int | None) -> int | None:
    if max_output_tokens is not None and offer.supports_max_tokens:
        limit = max(max_output_tokens, LEAST_OUTPUT_LIMIT)
        return max(limit, min(limit, LEAST_REASONING) + LEAST_REASONING) if offer.reasons else limit
    return offer.max_completion_tokens or offer.context_length


def _bound(
    rates: UnitPrices,
    request_tokens: int,
    output_tokens: int | None,
    web_searches: int,
    *,
    audio_input: bool,
    server_tools: ServerToolBound,
    attached: AttachedInput,
) -> Decimal | None:
    if output_tokens is None or rates.uncounted_fees or rates.prompt is None or rates.completion is None:
        return None
    if rates.unpriced_keys or (web_searches and rates.web_search is None):
        return None
    input_tokens = server_tools.input_tokens(request_tokens, output_tokens)
    try:
        bound = money.total(
            [
                money.multiply(_input_rate(rates, audio_input=audio_input, attached=attached), input_tokens),
                # Some listings have a price for each image. How often the parser runs in a loop is not documented.
                money.multiply(rates.image or money.ZERO, attached.images * server_tools.answers),
                money.multiply(attached.fees, server_tools.answers),
                money.multiply(_output_rate(rates), output_tokens * server_tools.answers),
                money.multiply(rates.web_search or money.ZERO, web_searches),
                money.multiply(rates.request or money.ZERO, server_tools.answers),
                server_tools.fees,
            ]
        )
    except DecimalException:  # more than 34 digits
        return None
    return bound if money.is_bounded(bound) else None


def _input_rate(rates: UnitPrices, *, audio_input: bool, attached: AttachedInput) -> Decimal:
    """Return the most that one input token can cost: a surcharge for writing is added to the rest."""
    read = _dearest(rates.prompt, rates.input_cache_read)
    written = _dearest(rates.input_cache_write, rates.input_cache_write_1h)
    if attached.images:
        read = _dearest(read, rates.image_token)
    if audio_input:
        read = _dearest(read, rates.audio, rates.input_audio_cache)
    return money.add(read, written) if rates.cache_write_is_surcharge else max(read, written)


def _output_rate(rates: UnitPrices) -> Decimal:
    return _dearest(rates.completion, rates.internal_reasoning, rates.image_output, rates.audio_output)


def _dearest(*rates: Decimal | None) -> Decimal:
    return max((rate for rate in rates if rate is not None), default=money.ZERO)

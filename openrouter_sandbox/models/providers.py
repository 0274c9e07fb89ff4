"""The providers behind the models: which models they serve, at which price, and how they bill an aborted call."""

from decimal import Decimal

# Closing the connection stops generation and billing.
STOPS_BILLING = frozenset({"OpenAI", "Anthropic", "Azure", "DeepSeek", "xAI", "Together"})

# Closing the connection does not stop generation: the whole answer is billed.
BILLS_IN_FULL = frozenset({"Amazon Bedrock", "Google", "Groq", "Mistral", "Perplexity", "Minimax"})

# The first is the top provider: the list prices are its prices, and it serves by default.
_BY_AUTHOR = {
    "openai": ("OpenAI", "Azure"),
    "anthropic": ("Anthropic", "Amazon Bedrock", "Google"),
    "google": ("Google",),
    "deepseek": ("DeepSeek", "Together", "Groq"),
    "x-ai": ("xAI", "Azure"),
    "mistralai": ("Mistral", "Together"),
    "meta-llama": ("Together", "Groq", "Amazon Bedrock"),
    "perplexity": ("Perplexity",),
    "minimax": ("Minimax", "Together"),
    "amazon": ("Amazon Bedrock",),
}
_ANY_AUTHOR = ("Together", "Groq")

# Invented price differences, so that tests can observe a provider whose price is not the list price.
_FACTORS = {
    ("deepseek/deepseek-v3.2", "Together"): Decimal("1.25"),
    ("deepseek/deepseek-v3.2", "Groq"): Decimal(2),
    ("openai/gpt-4o-mini", "Azure"): Decimal("1.1"),
    ("meta-llama/llama-3.3-70b-instruct", "Groq"): Decimal("1.5"),
    ("anthropic/claude-haiku-4.5", "Amazon Bedrock"): Decimal("1.1"),
}

# Invented: parameters of a model that a provider ignores, although the listing has them.
_IGNORED = {
    ("mistralai/mistral-large-2512", "Mistral"): frozenset({"tools", "tool_choice"}),
    ("mistralai/codestral-2508", "Mistral"): frozenset({"tools", "tool_choice"}),
    ("mistralai/codestral-2508", "Together"): frozenset({"seed"}),
}

_TAGS = {"google": "google-vertex"}


def serving(author: str) -> tuple[str, ...]:
    """Return the providers of an author's models, top provider first."""
    return _BY_AUTHOR.get(author, _ANY_AUTHOR)


def price_factor(model_id: str, provider: str) -> Decimal:
    """Return a provider's price for a model as a factor of the list price."""
    return _FACTORS.get((model_id, provider), Decimal(1))


def ignored_parameters(model_id: str, provider: str) -> frozenset[str]:
    """Return the listed parameters of a model that a provider ignores."""
    return _IGNORED.get((model_id, provider), frozenset())


def tag(provider: str) -> str:
    """Return the provider's slug in routing preferences: "amazon-bedrock" for "Amazon Bedrock"."""
    slug = provider.lower().replace(" ", "-")
    return _TAGS.get(slug, slug)


def is_named(provider: str, name: str) -> bool:
    """Return whether a routing preference names this provider, by name or slug; ignores region and quantization."""
    preferred = name.split("/", maxsplit=1)[0].strip().lower().replace(" ", "-")
    return preferred in {tag(provider), provider.lower().replace(" ", "-")}


def stops_billing(provider: str) -> bool:
    """Return whether closing the connection stops this provider's billing."""
    return provider in STOPS_BILLING

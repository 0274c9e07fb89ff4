"""The providers behind the models: who serves an author's models, at what price, and what an abort costs."""

from decimal import Decimal

# Closing the connection stops generation and billing.
STOPS_BILLING = frozenset({"OpenAI", "Anthropic", "Azure", "DeepSeek", "xAI", "Together"})

# Closing the connection stops nothing: the whole answer is billed.
BILLS_IN_FULL = frozenset({"Amazon Bedrock", "Google", "Groq", "Mistral", "Perplexity", "Minimax"})

# The first one is the top provider: its prices are the listed ones, and it serves unless routing says otherwise.
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

# Invented price differences, so that "served by another provider at its own price" can be seen.
_FACTORS = {
    ("deepseek/deepseek-v3.2", "Together"): Decimal("1.25"),
    ("deepseek/deepseek-v3.2", "Groq"): Decimal(2),
    ("openai/gpt-4o-mini", "Azure"): Decimal("1.1"),
    ("meta-llama/llama-3.3-70b-instruct", "Groq"): Decimal("1.5"),
    ("anthropic/claude-haiku-4.5", "Amazon Bedrock"): Decimal("1.1"),
}

_TAGS = {"google": "google-vertex"}


def serving(author: str) -> tuple[str, ...]:
    """The providers of an author's models, the top one first."""
    return _BY_AUTHOR.get(author, _ANY_AUTHOR)


def price_factor(model_id: str, provider: str) -> Decimal:
    """What a provider charges for a model, as a factor of the listed price."""
    return _FACTORS.get((model_id, provider), Decimal(1))


def tag(provider: str) -> str:
    """The provider's slug in routing preferences: "Amazon Bedrock" is "amazon-bedrock"."""
    slug = provider.lower().replace(" ", "-")
    return _TAGS.get(slug, slug)


def is_named(provider: str, name: str) -> bool:
    """Whether a routing preference means this provider: by name or slug, a region or quantization aside."""
    asked = name.split("/", maxsplit=1)[0].strip().lower().replace(" ", "-")
    return asked in {tag(provider), provider.lower().replace(" ", "-")}


def stops_billing(provider: str) -> bool:
    """Whether closing the connection stops this provider's billing."""
    return provider in STOPS_BILLING

"""How answers are made where a request does not say it."""

from pydantic import Field

from moorage_operator.api.schema import ApiModel, at_least


class Parameters(ApiModel):
    """What a request that leaves it out gets. A request that says it is answered as it says."""

    temperature: float | None = Field(
        None,
        description="Randomness of the choice of tokens; 0 always takes the likeliest.",
        examples=[0.7],
        ge=0,
        le=2,
    )
    top_p: float | None = Field(
        None,
        description="Tokens are chosen among the likeliest that have this probability together.",
        examples=[0.9],
        ge=0,
        le=1,
    )
    top_k: int | None = Field(
        None,
        description="Tokens are chosen among this many of the likeliest; 0 means among all.",
        examples=[40],
        ge=0,
        le=1_000_000,
    )
    min_p: float | None = Field(
        None,
        description="Tokens less likely than this share of the likeliest are not chosen.",
        examples=[0.05],
        ge=0,
        le=1,
    )
    max_tokens: int | None = Field(
        None,
        description="Tokens that an answer may have; it also ends at the context length.",
        examples=[512],
        ge=1,
        le=10_485_760,
    )
    frequency_penalty: float | None = Field(
        None,
        description="Makes tokens less likely by how often they have come; negative ones more likely.",
        examples=[0.1],
        ge=-2,
        le=2,
    )
    presence_penalty: float | None = Field(
        None,
        description="Makes tokens less likely that have come at all; negative ones more likely.",
        examples=[0.1],
        ge=-2,
        le=2,
    )
    repeat_penalty: float | None = Field(
        None,
        description="Divides the likelihood of tokens that have come lately, from 0.1; 1 has no effect.",
        examples=[1.1],
        ge=0,
        le=10,
        json_schema_extra=at_least("0.1", "1.1"),
    )

"""What the API is sent, as it is documented and as it is read."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from adapters.describer import Turn
from handlers.answers import MAX_TURNS
from litelens.classifier import DEFAULT_TOP_K

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")
JSON_TYPE = "application/json"
FORM_TYPE = "multipart/form-data"
BINARY_TYPES = (*IMAGE_TYPES, FORM_TYPE)

MAX_IMAGES = 16
MAX_QUESTION = 2000

ImageText = Annotated[
    str,
    Meta(
        description="The image's bytes in base64, or a data URL.",
        extra_json_schema={"minLength": 1, "contentEncoding": "base64", "format": "image"},
    ),
]
S3Uri = Annotated[
    str,
    Meta(
        description="An object in one of the allowed buckets.",
        pattern="^s3://[^/?#]+/.",
        examples=["s3://photos/cat.jpg"],
    ),
]
Question = Annotated[
    str,
    Meta(
        description="What to ask about the image; without it, a short description comes back.",
        pattern=r"\S",
        max_length=MAX_QUESTION,
        examples=["What is in the background?"],
    ),
]


class S3Object(Struct, frozen=True, forbid_unknown_fields=True):
    """An object in one of the buckets that this deployment may read."""

    bucket: Annotated[str, Meta(min_length=3, max_length=63, examples=["photos"])]
    key: Annotated[str, Meta(min_length=1, max_length=1024, examples=["cat.jpg"])]
    version_id: Annotated[str, Meta(min_length=1, max_length=1024)] | UnsetType = UNSET


class ImageInput(Struct, frozen=True, forbid_unknown_fields=True):
    """One image, in one of three ways."""

    image: ImageText | UnsetType = UNSET
    s3: S3Object | UnsetType = UNSET
    s3_uri: S3Uri | UnsetType = UNSET


class ClassifyBody(ImageInput, frozen=True, forbid_unknown_fields=True):
    """One image in one of three ways, or several as `images`; and options, which go before those in the query."""

    # Each is an ImageInput, but read by source_of(), so that one that is not fails alone.
    images: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_IMAGES)] | UnsetType = UNSET
    top_k: (
        Annotated[
            int,
            Meta(
                description="How many labels; more than the model has are all of them.",
                extra_json_schema={"minimum": 1, "default": DEFAULT_TOP_K},
            ),
        ]
        | UnsetType
    ) = UNSET
    threshold: (
        Annotated[
            float,
            Meta(
                description="Below this confidence an answer is uncertain; the model's own by default.",
                extra_json_schema={"minimum": 0, "maximum": 1},
            ),
        ]
        | UnsetType
    ) = UNSET
    heatmap: (
        Annotated[
            bool,
            Meta(description="Whether to show where the label scores.", extra_json_schema={"default": False}),
        ]
        | UnsetType
    ) = UNSET
    heatmap_label: (
        Annotated[
            str,
            Meta(
                description="The label to show; the best one by default, or when this is empty.",
                examples=["espresso"],
                extra_json_schema={"format": "label", "default": ""},
            ),
        ]
        | UnsetType
    ) = UNSET


class DescribeBody(ImageInput, frozen=True, forbid_unknown_fields=True):
    """One image in one of three ways, the question, and what was said before."""

    question: Question | UnsetType = UNSET
    turns: Annotated[list[Turn], Meta(max_length=MAX_TURNS)] = []


class UploadBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What will be uploaded."""

    content_type: Literal["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"]

"""The API's responses, as they are documented and sent. Confidences are from 0 to 1."""

import base64
import dataclasses
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from adapters.describer import Turn
from litelens import classifier
from litelens.heatmaps import to_png
from litelens.images import FORMATS

# What is told of a conversation; the oldest turns are forgotten.
MAX_TURNS = 20

# Of a confidence.
_DIGITS = 6

# The codes of problems with an object's being there.
_NOT_THERE = ("object_not_found", "object_version_not_found")

Confidence = Annotated[
    float,
    Meta(
        description="The model's confidence, calibrated if its temperature was fitted on labelled images.",
        ge=0,
        le=1,
        examples=[0.835643],
    ),
]
Label = Annotated[str, Meta(examples=["espresso"])]
Milliseconds = Annotated[float, Meta(ge=0, examples=[2.2])]
RequestId = Annotated[
    str, Meta(description="Finds the request in the logs.", examples=["9a00d317-3e73-4f23-aec5-3eb8269d6efd"])
]


class Model(Struct, frozen=True):
    """Which model answered."""

    name: Annotated[str, Meta(examples=["everyday"])]
    version: Annotated[str, Meta(examples=["1.0.0"])]


class LabelConfidence(Struct, frozen=True, omit_defaults=True):
    """A label with its index among the model's classes and, where the model has such, its coarse group."""

    label: Label
    index: Annotated[int, Meta(ge=0, examples=[967])]
    confidence: Confidence
    group: Annotated[str, Meta(examples=["food and drinks"])] | UnsetType = UNSET


class GroupConfidence(Struct, frozen=True):
    """The likeliest coarse group: its labels' confidences added up."""

    label: Annotated[str, Meta(examples=["food and drinks"])]
    confidence: Confidence


class Timing(Struct, frozen=True):
    """Milliseconds spent on decoding, on inference, and on both."""

    decode: Milliseconds
    inference: Milliseconds
    total: Milliseconds


class Region(Struct, frozen=True):
    """The part of the upright photo that the model saw, in the photo's pixels."""

    left: float
    top: float
    width: float
    height: float


class HeatMap(Struct, frozen=True):
    """Where in the photo a label scores: draw `png` over `region`, or `grid` (rows, top first) your own way."""

    label: Label
    png: Annotated[
        str,
        Meta(
            description="A PNG as data URL: red where the label scores most, transparent where least.",
            pattern="^data:image/png;base64,",
        ),
    ]
    grid: Annotated[
        list[list[float]], Meta(description="The label's score in each cell; their mean is the label's logit.")
    ]
    region: Region


class Photo(Struct, frozen=True):
    """The image as it was sent: its format, and its size once upright."""

    format: Annotated[str, Meta(extra_json_schema={"enum": list(FORMATS)})]
    width: Annotated[int, Meta(ge=1, examples=[640])]
    height: Annotated[int, Meta(ge=1, examples=[427])]


class Shown(Struct, frozen=True, omit_defaults=True):
    """What one image shows, likeliest label first."""

    image: Photo
    predictions: Annotated[list[LabelConfidence], Meta(min_length=1)]
    uncertain: Annotated[bool, Meta(description="Whether the best confidence is below the threshold.")]
    timing_ms: Timing
    group: GroupConfidence | UnsetType = UNSET
    heatmap: HeatMap | UnsetType = UNSET


class Classification(Shown, frozen=True, tag_field="status", tag="done"):
    """An image that was classified, and what it shows."""


class Problem(Struct, frozen=True):
    """Why a request or an image got no answer (RFC 9457). Programs go by `code`, people by `detail`."""

    type: Annotated[str, Meta(examples=["urn:litelens:problem:corrupt_image"])]
    title: Annotated[str, Meta(examples=["The image cannot be decoded"])]
    status: Annotated[int, Meta(ge=400, le=599, examples=[422])]
    detail: Annotated[str, Meta(examples=["The image is truncated or corrupt and cannot be decoded."])]
    code: Annotated[str, Meta(examples=["corrupt_image"])]
    request_id: RequestId


class Failure(Struct, frozen=True, tag_field="status", tag="failed"):
    """An image that got no answer, and why."""

    problem: Problem


class Pending(Struct, frozen=True, tag_field="status", tag="pending"):
    """An upload that has not arrived yet."""


class ClassifyAnswer(Shown, frozen=True, omit_defaults=True, kw_only=True):
    """What one image shows, and the model that says so."""

    model: Model
    request_id: RequestId


class ClassifyManyAnswer(Struct, frozen=True):
    """The answers for several images, in the order in which they were sent."""

    model: Model
    results: list[Classification | Failure]
    request_id: RequestId


class UploadAnswer(Struct, frozen=True):
    """Where to send a large image: a form with `fields` first and the image as the last field, `file`."""

    id: Annotated[str, Meta(description="GET /v1/results/{id} tells the result.")]
    url: str
    fields: dict[str, str]
    expires_in: Annotated[int, Meta(description="Seconds for which the form is accepted.", ge=1)]
    max_bytes: Annotated[int, Meta(ge=1)]
    request_id: RequestId


class ResultAnswer(Struct, frozen=True):
    """How far the classification of an upload has come."""

    id: str
    model: Model
    result: Classification | Failure | Pending
    request_id: RequestId


class BulkResult(Struct, frozen=True):
    """What became of an object in S3: the result object, the item in the table, and the event's detail."""

    bucket: str
    key: str
    revision: Annotated[str, Meta(description="The object's version id, or else its etag.")]
    model: Model
    time: Annotated[str, Meta(description="When it was classified (ISO 8601, UTC).")]
    result: Classification | Failure

    @property
    def is_superseded(self) -> bool:
        """Whether the object was overwritten before it could be read, so that another result tells of it."""
        return isinstance(self.result, Failure) and self.result.problem.code == "object_version_not_found"

    @property
    def is_final(self) -> bool:
        """Whether it will stay so: what was deleted or overwritten may be put again, and be the same revision."""
        return not isinstance(self.result, Failure) or self.result.problem.code not in _NOT_THERE


class Links(Struct, frozen=True, omit_defaults=True):
    """What this deployment has beyond `POST /v1/classify`, by its path below the API's root."""

    report: str | UnsetType = UNSET
    uploads: str | UnsetType = UNSET
    describe: str | UnsetType = UNSET


class ImageLimits(Struct, frozen=True, omit_defaults=True):
    """The largest image in bytes, in a request and, where there are uploads, as an upload; and in pixels."""

    request_bytes: Annotated[int, Meta(ge=1)]
    pixels: Annotated[int, Meta(ge=1)]
    upload_bytes: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class ModelAnswer(Struct, frozen=True, omit_defaults=True):
    """The model's manifest, what this deployment does with it, and all that was measured of it where it was."""

    manifest: Annotated[
        dict[str, Any],
        Meta(
            description="The bundle's manifest.json.",
            extra_json_schema={
                "properties": {
                    "warnings": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Sentences that say why the model must not be relied on, such as an accuracy "
                        "that its test images do not show to be better than chance.",
                    }
                }
            },
        ),
    ]
    links: Links
    limits: ImageLimits
    metrics: dict[str, Any] | UnsetType = UNSET


class HealthAnswer(Struct, frozen=True):
    """That the model works: it has answered once before the first request."""

    status: Literal["ok"]
    model: Model
    warm_up_ms: Milliseconds


class DescribeAnswer(Struct, frozen=True):
    """What the language model says of the image. To ask on, send `turns` back with the next question."""

    model: Model
    describe_model: str
    answer: str
    turns: list[Turn]
    predictions: list[LabelConfidence]
    uncertain: bool
    input_tokens: int
    output_tokens: int
    request_id: RequestId


def classification_of(prediction: classifier.Prediction) -> Classification:
    """The prediction as it is answered."""
    return Classification(
        image=Photo(prediction.image_format, prediction.width, prediction.height),
        predictions=labels_of(prediction),
        uncertain=prediction.uncertain,
        timing_ms=Timing(**dataclasses.asdict(prediction.timing)),
        group=UNSET
        if prediction.group is None
        else GroupConfidence(prediction.group.label, round(prediction.group.confidence, _DIGITS)),
        heatmap=UNSET if prediction.heat_map is None else _heat_map(prediction.heat_map),
    )


def labels_of(prediction: classifier.Prediction) -> list[LabelConfidence]:
    """The prediction's labels as they are answered."""
    return [
        LabelConfidence(
            candidate.label,
            candidate.index,
            round(candidate.confidence, _DIGITS),
            UNSET if candidate.group is None else candidate.group,
        )
        for candidate in prediction.candidates
    ]


def _heat_map(heat_map: classifier.HeatMap) -> HeatMap:
    left, top, right, bottom = heat_map.box
    png = base64.b64encode(to_png(heat_map.scores, (right - left) / (bottom - top))).decode()
    return HeatMap(
        label=heat_map.label,
        png=f"data:image/png;base64,{png}",
        grid=[[round(float(score), 4) for score in row] for row in heat_map.scores],
        region=Region(left, top, right - left, bottom - top),
    )

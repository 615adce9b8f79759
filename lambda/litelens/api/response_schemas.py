"""Schemas of the API's responses. Confidences are from 0 to 1."""

import base64
import dataclasses
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from litelens.aws.bedrock import Turn
from litelens.core import classifier
from litelens.core.formats import ALL_FORMATS
from litelens.core.heatmaps import to_png

# Turns of a conversation that are kept; older ones are dropped.
MAX_TURNS = 20

# Digits of a confidence after the point.
_DIGITS = 6

# The forms of an embedding in a response: float32 numbers in base64, or a list.
EMBEDDING_FORMATS = ("base64", "list")
DEFAULT_EMBEDDING_FORMAT = "base64"

# The codes of objects that do not exist (any more).
_MISSING_OBJECT = ("object_not_found", "object_version_not_found")

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
Unfamiliar = Annotated[
    bool,
    Meta(description="Whether the photo is unlike all photos that the model learned from; absent if it cannot tell."),
]
RequestId = Annotated[
    str, Meta(description="The request's id in the logs.", examples=["9a00d317-3e73-4f23-aec5-3eb8269d6efd"])
]


class Model(Struct, frozen=True):
    """The model's name and version. The name is that of the bundle's folder."""

    name: Annotated[str, Meta(examples=["everyday"])]
    version: Annotated[str, Meta(examples=["1.0.0"])]

    @property
    def full_name(self) -> str:
        """The name and the version, such as everyday/1.0.0."""
        return f"{self.name}/{self.version}"


class LabelConfidence(Struct, frozen=True, omit_defaults=True):
    """A label, its index among the model's labels and, if the model has groups, its group."""

    label: Label
    index: Annotated[int, Meta(ge=0, examples=[967])]
    confidence: Confidence
    group: Annotated[str, Meta(examples=["food and drinks"])] | UnsetType = UNSET
    present: (
        Annotated[
            bool,
            Meta(
                description="Whether the confidence reaches the label's threshold. Only a multi-label model, whose "
                "labels do not exclude each other, says it."
            ),
        ]
        | UnsetType
    ) = UNSET


class GroupConfidence(Struct, frozen=True):
    """The most confident group, with the sum of its labels' confidences."""

    label: Annotated[str, Meta(examples=["food and drinks"])]
    confidence: Confidence


class Timing(Struct, frozen=True):
    """Milliseconds for decoding, for inference, and for both."""

    decode: Milliseconds
    inference: Milliseconds
    total: Milliseconds


class Region(Struct, frozen=True):
    """The part of the upright photo that the model received, in the photo's pixels."""

    left: float
    top: float
    width: float
    height: float


class HeatMap(Struct, frozen=True):
    """The heat map of a label: draw `png` over `region`, or draw `grid` (rows, top first) yourself."""

    label: Label
    png: Annotated[
        str,
        Meta(
            description="A PNG as data URL: red where the label's score is highest, transparent where it is lowest.",
            pattern="^data:image/png;base64,",
        ),
    ]
    grid: Annotated[
        list[list[float]], Meta(description="The label's score in each cell; their mean is the label's logit.")
    ]
    region: Region


class Photo(Struct, frozen=True):
    """The image as sent: its format, and its size after EXIF orientation is applied."""

    format: Annotated[str, Meta(extra_json_schema={"enum": [each.name for each in ALL_FORMATS]})]
    width: Annotated[int, Meta(ge=1, examples=[640])]
    height: Annotated[int, Meta(ge=1, examples=[427])]


class Embedding(Struct, frozen=True, omit_defaults=True):
    """The photo's features, pooled and divided by their L2 norm, as `values` or as `base64`.

    The product of two embeddings is their cosine similarity. Compare embeddings of the same `backbone` only.
    """

    backbone: Annotated[
        str,
        Meta(
            description="What identifies the features: the name, version and checksum of the model that they are from.",
            examples=["everyday/1.1.0/55e99f427c89"],
        ),
    ]
    dimension: Annotated[int, Meta(ge=1, examples=[1280])]
    values: list[float] | UnsetType = UNSET
    base64: (
        Annotated[
            str,
            Meta(description="Little-endian float32 numbers.", extra_json_schema={"contentEncoding": "base64"}),
        ]
        | UnsetType
    ) = UNSET


class ImageResult(Struct, frozen=True, omit_defaults=True):
    """The classification of one image, most confident label first.

    The answer of a multi-label model is the labels that are `present`: none, one or several.
    """

    image: Photo
    predictions: Annotated[list[LabelConfidence], Meta(min_length=1)]
    uncertain: Annotated[bool, Meta(description="Whether no label reaches its threshold, or the photo is unfamiliar.")]
    timing_ms: Timing
    unfamiliar: Unfamiliar | UnsetType = UNSET
    group: GroupConfidence | UnsetType = UNSET
    heatmap: HeatMap | UnsetType = UNSET
    embedding: Embedding | UnsetType = UNSET

    @property
    def is_multi_label(self) -> bool:
        """True if the result is of a multi-label model."""
        return self.predictions[0].present is not UNSET

    @property
    def labels(self) -> list[LabelConfidence]:
        """The labels that the answer names: those that are present, or the best of labels that exclude each other."""
        if self.is_multi_label:
            return [each for each in self.predictions if each.present is True]
        return self.predictions[:1]


class Classification(ImageResult, frozen=True, tag_field="status", tag="done"):
    """The result of an image that was classified."""


class Problem(Struct, frozen=True):
    """The reason why a request or an image failed (RFC 9457): `code` for programs, `detail` for people."""

    type: Annotated[str, Meta(examples=["urn:litelens:problem:corrupt_image"])]
    title: Annotated[str, Meta(examples=["The image cannot be decoded"])]
    status: Annotated[int, Meta(ge=400, le=599, examples=[422])]
    detail: Annotated[str, Meta(examples=["The image is truncated or corrupt and cannot be decoded."])]
    code: Annotated[str, Meta(examples=["corrupt_image"])]
    request_id: RequestId


class Failure(Struct, frozen=True, tag_field="status", tag="failed"):
    """The result of an image that could not be classified."""

    problem: Problem


class Pending(Struct, frozen=True, tag_field="status", tag="pending"):
    """The result of an upload that has not been classified yet."""


class ClassifyAnswer(ImageResult, frozen=True, omit_defaults=True, kw_only=True):
    """The classification of one image, and the model."""

    model: Model
    request_id: RequestId


class ClassifyManyAnswer(Struct, frozen=True):
    """The results of several images, in the order of the request."""

    model: Model
    results: list[Classification | Failure]
    request_id: RequestId


class UploadAnswer(Struct, frozen=True):
    """A form for a large image: send `fields` first, and the image as the last field, `file`."""

    id: Annotated[str, Meta(description="GET /v1/results/{id} returns the result.")]
    url: str
    fields: dict[str, str]
    expires_in: Annotated[int, Meta(description="Seconds for which the form is valid.", ge=1)]
    max_bytes: Annotated[int, Meta(ge=1)]
    request_id: RequestId


class ResultAnswer(Struct, frozen=True):
    """The result of an upload, which may be pending."""

    id: str
    model: Model
    result: Classification | Failure | Pending
    request_id: RequestId


class BulkResult(Struct, frozen=True):
    """The result of an object in S3: an item of the results table, a line of a result object, or one of an event's."""

    bucket: str
    key: str
    revision: Annotated[str, Meta(description="The object's version id, or else its etag.")]
    model: Model
    time: Annotated[str, Meta(description="When it was classified (ISO 8601, UTC).")]
    result: Classification | Failure

    @property
    def is_superseded(self) -> bool:
        """Return whether the object was overwritten before it was read, so that another result replaces this one."""
        return isinstance(self.result, Failure) and self.result.problem.code == "object_version_not_found"

    @property
    def is_final(self) -> bool:
        """Return whether the result can no longer change. A missing object may be put again with the same revision."""
        return not isinstance(self.result, Failure) or self.result.problem.code not in _MISSING_OBJECT


class Links(Struct, frozen=True, omit_defaults=True):
    """Optional endpoints of this deployment, as paths below the API's root; `models` if there are several."""

    models: str | UnsetType = UNSET
    report: str | UnsetType = UNSET
    uploads: str | UnsetType = UNSET
    describe: str | UnsetType = UNSET


class ImageLimits(Struct, frozen=True, omit_defaults=True):
    """The largest image: in bytes in a request, in bytes as an upload (if there are uploads), and in pixels."""

    request_bytes: Annotated[int, Meta(ge=1)]
    pixels: Annotated[int, Meta(ge=1)]
    upload_bytes: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class ModelAnswer(Struct, frozen=True, omit_defaults=True):
    """The model's manifest and, if it has them, its metrics; the deployment's links and limits."""

    manifest: Annotated[
        dict[str, Any],
        Meta(
            description="The bundle's manifest.json.",
            extra_json_schema={
                "properties": {
                    "warnings": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Reasons not to rely on the model, such as an accuracy not significantly "
                        "better than chance.",
                    }
                }
            },
        ),
    ]
    links: Links
    limits: ImageLimits
    metrics: dict[str, Any] | UnsetType = UNSET


class ModelLinks(Struct, frozen=True, omit_defaults=True):
    """The endpoints of one model, as paths below the API's root."""

    model: Annotated[str, Meta(examples=["/v1/model?model=everyday"])]
    report: Annotated[str, Meta(examples=["/v1/model/report?model=everyday"])] | UnsetType = UNSET


class ListedModel(Struct, frozen=True, omit_defaults=True):
    """A model, or the error that prevents its use; without an error, there is a version and the number of labels."""

    name: Annotated[str, Meta(examples=["everyday"])]
    version: Annotated[str, Meta(examples=["1.0.0"])] | UnsetType = UNSET
    description: Annotated[str, Meta(description="The manifest's description.")] | UnsetType = UNSET
    label_count: Annotated[int, Meta(ge=1, examples=[1000])] | UnsetType = UNSET
    links: ModelLinks | UnsetType = UNSET
    error: Annotated[str, Meta(description="The reason why the model's bundle cannot be used.")] | UnsetType = UNSET


class ModelsAnswer(Struct, frozen=True):
    """All models, the default one first, and the name of the default one."""

    default: Annotated[str, Meta(examples=["everyday"])]
    models: Annotated[list[ListedModel], Meta(min_length=1)]


class HealthAnswer(Struct, frozen=True):
    """The model works: it has classified one image before the first request."""

    status: Literal["ok"]
    model: Model
    warm_up_ms: Milliseconds


class DescribeAnswer(Struct, frozen=True, omit_defaults=True):
    """The language model's answer. To continue the conversation, send `turns` with the next question."""

    model: Model
    describe_model: str
    answer: str
    turns: list[Turn]
    predictions: list[LabelConfidence]
    uncertain: bool
    input_tokens: int
    output_tokens: int
    request_id: RequestId
    unfamiliar: Unfamiliar | UnsetType = UNSET


def classification_of(
    prediction: classifier.Prediction, embedding_format: str = DEFAULT_EMBEDDING_FORMAT
) -> Classification:
    """Return a prediction as a response."""
    return Classification(
        image=Photo(prediction.image_format, prediction.width, prediction.height),
        predictions=labels_of(prediction),
        uncertain=prediction.uncertain,
        unfamiliar=unfamiliar_of(prediction),
        timing_ms=Timing(**dataclasses.asdict(prediction.timing)),
        group=UNSET
        if prediction.group is None
        else GroupConfidence(prediction.group.label, round(prediction.group.confidence, _DIGITS)),
        heatmap=UNSET if prediction.heat_map is None else _heat_map(prediction.heat_map),
        embedding=UNSET if prediction.embedding is None else _embedding(prediction.embedding, embedding_format),
    )


def unfamiliar_of(prediction: classifier.Prediction) -> bool | UnsetType:
    """Return whether the photo is unfamiliar as in a response."""
    return UNSET if prediction.unfamiliar is None else prediction.unfamiliar


def labels_of(prediction: classifier.Prediction) -> list[LabelConfidence]:
    """Return a prediction's labels as in a response."""
    return [
        LabelConfidence(
            candidate.label,
            candidate.index,
            round(candidate.confidence, _DIGITS),
            UNSET if candidate.group is None else candidate.group,
            UNSET if candidate.present is None else candidate.present,
        )
        for candidate in prediction.candidates
    ]


def _embedding(embedding: classifier.Embedding, embedding_format: str) -> Embedding:
    values = embedding.values.astype("<f4")
    is_list = embedding_format == "list"
    return Embedding(
        backbone=embedding.backbone,
        dimension=len(values),
        values=values.tolist() if is_list else UNSET,
        base64=UNSET if is_list else base64.b64encode(values.tobytes()).decode(),
    )


def _heat_map(heat_map: classifier.HeatMap) -> HeatMap:
    left, top, right, bottom = heat_map.box
    png = base64.b64encode(to_png(heat_map.scores, (right - left) / (bottom - top))).decode()
    return HeatMap(
        label=heat_map.label,
        png=f"data:image/png;base64,{png}",
        grid=[[round(float(score), 4) for score in row] for row in heat_map.scores],
        region=Region(left, top, right - left, bottom - top),
    )

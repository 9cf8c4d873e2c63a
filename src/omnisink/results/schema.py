"""What records and manifests hold, as types: the one place that names their fields, formats and keys.

What is written is built as one of these types, so that mypy sees a misspelt field. What is read is checked against the
same type by `omnisink.results.checking.check`. Fields that a type does not name are kept as they are.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from omnisink.results.checking import Range

#: The formats of a run's manifest, by what wrote it; of a study also that of its results.
EVALUATION_FORMAT = "omnisink.eval.v1"
STUDY_FORMAT = "omnisink.study.v1"
TUNING_FORMAT = "omnisink.tune.v1"
#: The format of what `omnisink compare` writes.
COMPARISON_FORMAT = "omnisink.comparison.v1"

#: A number of things. Arrow and spreadsheets hold it exactly.
Count = Annotated[int, Range(0, 2**53)]
#: From 0 to 1.
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0)]

#: The fields that together name a record of an evaluation, of a study and of a search.
EVALUATION_KEY = ("id", "method", "attempt")
STUDY_KEY = ("item", "question", "unit")
TUNING_KEY = ("setting", "batch")


class _Evaluated(TypedDict):
    id: str
    cluster: str | int
    method: str
    attempt: Count
    right: bool | Share | None
    error: str | None


class EvaluationRecord(_Evaluated, total=False):
    """One question under one method, as `omnisink eval` writes it; docs/eval.md says what each field is."""

    groups: dict[str, list[str] | str]
    prompt_sha256: str | None
    prompt_tokens: Count | None
    video_tokens: Count | None
    image_tokens: Count | None
    audio_tokens: Count | None
    frames: Count | None
    audio_seconds: Positive | None
    new_tokens: Count | None
    sinks: Count | None
    skip_ratio: Share | None
    text: str | None
    parsed: str | None
    gold: str | float | bool | list[str] | None
    loss: float | None
    margin: float | None
    seconds: Positive | None
    batch: Count | None
    memory_mb: Positive | None


class _Task(TypedDict):
    name: str


class TaskFacts(_Task, total=False):
    """What a manifest says of the task."""

    title: str | None
    split: str | None
    protocol: str | None
    metric: str | None
    mean_over: str | None
    questions: Count | None
    sha256: str | None


class _Manifest(TypedDict, total=False):
    """What every manifest may say: when, with which command, model and versions."""

    started: str | None
    command: str | None
    model: dict[str, Any] | None
    versions: dict[str, Any] | None


class _EvaluationRun(TypedDict):
    format: str
    task: TaskFacts
    methods: dict[str, dict[str, Any] | None]


class EvaluationManifest(_EvaluationRun, _Manifest, total=False):
    """What `omnisink eval` says of a run; ``left_out`` has the methods that the list ``all`` did not take, and why."""

    left_out: dict[str, str] | None
    score: str | None
    frames: str | None
    seed: int | None


class _TuningRun(TypedDict):
    format: str
    task: TaskFacts
    method: dict[str, Any]
    search: dict[str, Any]


class TuningManifest(_TuningRun, _Manifest, total=False):
    """What `omnisink tune` says of a search."""

    frames: str | None


class TuningRecord(TypedDict):
    """Margins of a batch of questions under one setting, as `omnisink tune` writes them."""

    setting: str
    batch: str
    settings: dict[str, Any] | None
    margins: dict[str, float]


class _StudyRun(TypedDict):
    format: str
    items: list[str]
    plan: dict[str, Any]


class StudyManifest(_StudyRun, _Manifest, total=False):
    """What `omnisink study` says of a study."""

    data: dict[str, Any] | None


class StudyKey(TypedDict):
    """What names a record of a study."""

    item: str
    question: str
    unit: str


class StudyRecord(StudyKey, total=False):
    """One measurement of one item, as `omnisink study` writes it; what else it holds depends on the question."""

    cluster: str
    loss: float | list[float] | None
    right: bool | list[bool | None] | None
    said: str | list[str]
    seconds: Positive


class End(TypedDict):
    """What is written when all of an item is done: how long it took."""

    seconds: Positive


class ItemOutcome(TypedDict):
    """What the model made of an item in one run: the nats of its answer, whether it is right, and the answer."""

    loss: float
    right: bool | None
    said: str


class Base(ItemOutcome):
    """The outcome of the baseline, with the item's cluster and its number of tokens."""

    cluster: str
    tokens: Count


class ConditionFacts(TypedDict, total=False):
    """Facts of a condition: its name where its unit is not it, and the settings that a summary groups by."""

    arm: str
    n: Count
    layer: Count
    keep: Share
    by: str
    gamma: float


class _Labelled(TypedDict):
    label: str


class ConditionOutcome(ItemOutcome, ConditionFacts, _Labelled):
    """The outcome of one condition, with its label and facts."""


class TurnedOutcome(ConditionOutcome):
    """The outcome of a condition, with the degrees by which it turned head outputs."""

    turned: float | None


class Tempered(TypedDict):
    """Losses of a passage with the logits times each of a few inverse temperatures; None for a question."""

    tempered: list[float] | None


class TurnedTemperedOutcome(TurnedOutcome, Tempered):
    """The outcome of a condition that turns, also with the logits at other temperatures."""


class SinkPlaces(TypedDict):
    """Where the sinks of an item are, and at which layers."""

    positions: list[Count]
    layers: list[Count]


class ZeroKOutcome(ConditionOutcome):
    """The outcome of Zero-K, with the share of the attention on the sink that is left, and that was there before."""

    mass: float | None
    mass_before: float | None


class _Marked(TypedDict):
    tokens: dict[str, Count]
    criteria: dict[str, dict[str, dict[str, Any]]]


class Marks(_Marked, total=False):
    """Tokens by modality, and by criterion and layer what is marked, where, and how much attention it gets.

    ``attention`` is the attention to each modality by layer, and under ``"NAME: sinks"`` to its sinks; records of
    earlier versions have none.
    """

    attention: dict[str, dict[str, float | None]]


class SinkAttention(TypedDict):
    """Every head's attention to the sinks by layer, and the layers that have a sink."""

    attention: dict[str, list[float | None]]
    marked: list[Count]


class ZeroedHeads(TypedDict):
    """The outcomes without each head of a layer, in the order of the heads."""

    layer: Count
    loss: list[float]
    right: list[bool | None]


class ByLayer(TypedDict):
    """Numbers by layer and name."""

    layers: dict[str, dict[str, Any]]


class Geometry(ByLayer):
    """Norms and cosines by layer, with the largest error of the split of the head outputs."""

    split_error: float | None


class ComponentsOfLayer(TypedDict):
    """Two principal components of a prompt's tokens at one layer: places, shares of the variance, and the origin."""

    layer: Count
    explained: list[float]
    origin: list[float]
    x: list[float]
    y: list[float]


class PrincipalComponents(TypedDict):
    """Principal components of a prompt's values and residual streams, and the positions of its sinks."""

    sinks: list[int]
    values: list[ComponentsOfLayer]
    residual_streams: list[ComponentsOfLayer]


class BaseRecord(StudyKey, Base):
    """`Base` with its key."""


class ConditionRecord(StudyKey, ConditionOutcome, total=False):
    """`ConditionOutcome` with its key, and what was measured meanwhile."""

    turned: float | None
    mass: float | None
    mass_before: float | None
    tempered: list[float] | None


class TemperedRecord(StudyKey, Tempered):
    """`Tempered` with its key."""


class SinkPlacesRecord(StudyKey, SinkPlaces):
    """`SinkPlaces` with its key."""


class MarksRecord(StudyKey, Marks):
    """`Marks` with its key."""


class SinkAttentionRecord(StudyKey, SinkAttention):
    """`SinkAttention` with its key."""


class ZeroedHeadsRecord(StudyKey, ZeroedHeads):
    """`ZeroedHeads` with its key."""


class ByLayerRecord(StudyKey, ByLayer):
    """`ByLayer` with its key."""


class GeometryRecord(StudyKey, Geometry):
    """`Geometry` with its key."""

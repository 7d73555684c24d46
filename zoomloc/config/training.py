"""What a config says of training.

Knows nothing of torch, of models or of how a config is read.
"""

from typing import Annotated, Literal

from pydantic import Field

from zoomloc.config.base import Section


class AugmentConfig(Section):
    """Random changes to training pictures; 0 turns one off (1 a crop)."""

    photo_colour: float = Field(0.2, ge=0)
    photo_colour_chance: float = Field(1.0, ge=0, le=1)
    photo_grey: float = Field(0.0, ge=0, le=1)  # chance
    photo_jpeg: float = Field(0.0, ge=0, le=1)  # chance of the loss of another coding
    photo_crop: float = Field(1.0, gt=0, le=1)  # least share of the area, its shape kept
    photo_shift: float = Field(0.08, ge=0, le=0.5)  # share of the picture's width
    photo_scale: float = Field(0.15, ge=0, le=0.5)
    photo_blur: float = Field(0.0, ge=0, le=1)  # chance of blur or sharpening
    photo_erase: float = Field(0.3, ge=0, le=1)  # chance of one grey box
    photo_dropout: float = Field(0.0, ge=0, le=1)  # chance of a grid or many black boxes
    photo_noise: float = Field(0.0, ge=0)
    view_colour: float = Field(0.15, ge=0)
    view_colour_chance: float = Field(1.0, ge=0, le=1)
    view_grey: float = Field(0.0, ge=0, le=1)
    view_jpeg: float = Field(0.0, ge=0, le=1)
    view_blur: float = Field(0.0, ge=0, le=1)
    view_dropout: float = Field(0.0, ge=0, le=1)
    first_view_plain: bool = False  # zoom: the view all photos share is left as it is
    mirror: bool = False  # towers: photo and map mirrored together, for half of a batch
    turn: bool = False  # towers: the map turned by a multiple of 90 degrees
    view_noise: float = Field(0.0, ge=0)


Beta = Annotated[float, Field(ge=0, lt=1)]
Recall = Literal["r_at_25m", "r_at_40m", "r_at_50m", "r_at_100m", "exact_cell"]


class TrainConfig(Section):
    """The loop; it ends at ``steps`` or after ``max_minutes``, whichever comes first."""

    seed: int = 0
    start_from: str = ""  # weights to begin with: general, or the folder of a run; "": random ones
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a graphics card where there is one
    batch: int = Field(64, ge=1)
    accumulate: int = Field(1, ge=1)  # batches that one step of the weights is made of
    steps: int = Field(100_000, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    clock: Literal["wall", "process"] = "wall"  # process: time of this process over all threads
    optimizer: Literal["muon", "adamw"] = "muon"  # for what is not pretrained
    lr: float = Field(4e-3, gt=0)  # adamw wants about a fifth of it
    lr_floor: float = Field(0.02, ge=0, le=1)  # share of lr at the end of the cosine
    backbone_lr: float = Field(1.0, ge=0)  # share of lr for pretrained weights
    layer_decay: float = Field(1.0, gt=0, le=1)  # of that, from each pretrained layer to the next
    warmup: float = Field(0.05, ge=0, le=1)  # share of the run
    weight_decay: float = Field(0.05, ge=0)
    decay_vectors: bool = False  # weight decay on norms and biases too
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    clip: float = Field(1.0, gt=0)
    ema: float = Field(0.998, ge=0, lt=1)
    # auto: bf16 where the processor has it; fp16 on a graphics card only
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: int = Field(1, ge=0)  # of torch; 0 leaves it to torch. One beats two on shared cores
    targets: Literal["soft", "hard"] = "soft"
    sigma_m: float = Field(8.0, ge=0)  # blur of the target beyond the photo's own position error
    uniform_share: float = Field(0.03, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    rollout_share: float = Field(0.0, ge=0, le=1)  # share of prefixes from the model's own rollout
    val_every_minutes: float = Field(2.0, gt=0)
    val_every_steps: int | None = Field(None, ge=1)
    val_photos: int = Field(200, ge=1)
    select_by: Recall = "r_at_50m"  # on val
    keep: int = Field(2, ge=1)
    augment: AugmentConfig = AugmentConfig()

"""The step behind ``zoomloc export``: a trained model to pass on, with a card that says what it is.

Knows nothing of how a model works; only its best weights and what is known of them are kept.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomloc.config import Config
from zoomloc.world.files import write_text

if TYPE_CHECKING:
    from zoomloc.checkpoint import Explained

CARD = "MODEL_CARD.md"


def export_run(run: Path, out: Path) -> int:
    """Write the best weights of ``run``, without the paths that it was trained from; their bytes.

    What is exported is a run itself: ``--run`` takes it. A card that is there stays, since
    somebody may have written into it. Raises CheckpointError.
    """
    from zoomloc.checkpoint import (
        best_checkpoint,
        load_explained,
        load_model,
        load_tensors,
        save_checkpoint,
    )
    from zoomloc.scorers.elsewhere import NAME, load_elsewhere, save_elsewhere
    from zoomloc.world.files import sha256_of

    best = best_checkpoint(run)
    explained, weights = load_explained(best), load_tensors(best)
    nowhere = {"data": Config().data, "regions": (), "val_regions": (), "town": None}
    begun = explained.config.train.start_from
    train = {"start_from": begun if begun == "general" else ""}
    nowhere["train"] = explained.config.train.model_copy(update=train)
    config = explained.config.model_copy(update=nowhere)
    target = out / best.name
    save_checkpoint(target, weights, replace(explained, config=config))
    other = load_elsewhere(run / NAME, load_model(best, explained), sha256_of(best)[:16])
    if other is not None:
        save_elsewhere(out / NAME, other, sha256_of(target)[:16])
    if not (out / CARD).is_file():
        parameters = sum(tensor.numel() for tensor in weights.values())
        write_text(out / CARD, card(explained, parameters, target.stat().st_size))
    return target.stat().st_size


def card(explained: "Explained", numbers: int, size_bytes: int) -> str:
    """What is known of a model, as Markdown."""
    regions = len(explained.config.regions) or 1
    lines = [
        f"# {explained.config.name}: a model for zoomloc",
        "",
        f"- Kind: {explained.config.model.kind}; {numbers:,} numbers, {size_bytes / 1e6:.1f} MB.",
        f"- Trained: {explained.seconds / 60:.1f} minutes, {explained.step:,} steps, "
        f"{explained.photos_seen:,} photos seen, of {regions} region(s).",
        f"- Data: {'; '.join(explained.attribution) or 'unknown'}.",
        f"- Licence of the data: {explained.licence or 'unknown'}.",
        *_figures(explained.metrics),
        "- Limits: how it does elsewhere is unknown; measure it there with `zoomloc evaluate`.",
        "",
        "Use: `zoomloc locate photo.jpg --run THIS_FOLDER --region REGION`.",
        "",
    ]
    return "\n".join(lines)


def _figures(metrics: dict[str, Any]) -> list[str]:
    found = metrics.get("val", {}).get("r_at_50m")
    if not found:
        return []
    return [
        f"- R@1 within 50 m on the photos it was chosen by: {found['value']:.1%} "
        f"({found['lo']:.1%} – {found['hi']:.1%}, n {found['n']})."
    ]

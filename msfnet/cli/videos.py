"""Commands that look after videos: examine them, pack them, keep their frames."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from msfnet.atomic_io import write_text
from msfnet.cli.app import (
    Annotations,
    DataPath,
    Json,
    Split,
    app,
    log,
)
from msfnet.types import UserError


@app.command
def doctor(
    data: DataPath,
    *,
    annotations: Annotations = None,
    split: Split = 1,
    out: Annotated[Path | None, Parameter(help="Manifest to write of the videos worth training on.")] = None,
    report: Annotated[Path | None, Parameter(help="Folder for report.html and doctor.json.")] = None,
    augmentations: Annotated[Path | None, Parameter(help="Page to write of what the recipe does to clips.")] = None,
    recipe: Annotated[str, Parameter(help="Recipe whose clips and cost are meant.")] = "small",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="table.key=value, once for each key.")] = (),
    as_json: Json = False,
) -> int:
    """Decode every video; name what is bad, short, black, a copy or in two splits; say what training will cost."""
    from msfnet.data.annotations.readers import read_dataset
    from msfnet.data.augment.preview import write_augmentation_page
    from msfnet.doctor.examination import examine, write_clean_manifest
    from msfnet.doctor.page import write_doctor_page
    from msfnet.recipe import load_recipe

    settings = load_recipe(recipe, set_)
    if augmentations:
        if out or report or as_json:
            raise UserError("expected --augmentations without --out, --report and --json: nothing is examined then")
        write_augmentation_page(read_dataset(data, annotations, split), settings, augmentations)
        print(augmentations)
        return 0
    try:
        examination = examine(data, annotations, split, settings, needs_classes=out is not None)
    except KeyboardInterrupt:
        log.info("stopped; the same command goes on from here")
        return 1
    text = json.dumps(examination.to_dict(), indent=2, ensure_ascii=False)
    if report:
        report.mkdir(parents=True, exist_ok=True)
        write_doctor_page(report / "report.html", examination)
        write_text(report / "doctor.json", text)
    print(text if as_json else examination.to_text())
    if out:
        log.info(write_clean_manifest(out, examination))
    return 1 if examination.problems else 0


@app.command
def shard(
    data: DataPath,
    *,
    out: Annotated[Path, Parameter(help="Folder for the shards.")],
    annotations: Annotations = None,
    split: Split = 1,
    recipe: Annotated[
        str, Parameter(help="Recipe, or the recipe.toml of a run, whose frame size is wanted.")
    ] = "small",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", help="table.key=value, once for each key.")] = (),
    shard_size_mib: Annotated[int, Parameter(help="Size in MiB at which a shard is closed.")] = 256,
) -> int:
    """Pack a data set into shards to stream: tar archives of decoded, resized videos. Started again, it goes on."""
    from msfnet.data.annotations.readers import read_video_files
    from msfnet.data.shards.write import write_shards
    from msfnet.recipe import load_recipe

    if shard_size_mib < 1:
        raise UserError(f"expected --shard-size-mib of 1 or more, found {shard_size_mib}")
    files, resolved = read_video_files(data, annotations, split), load_recipe(recipe, set_)
    try:
        shards = write_shards(files, resolved, data, out, shard_bytes=shard_size_mib * 2**20)
    except KeyboardInterrupt:
        log.info("stopped; the same command goes on")
        return 1
    print(out)
    return 1 if shards.unreadable else 0


@app.command
def cache(
    *,
    clear: Annotated[bool, Parameter(negative=(), help="Remove all that is kept there, and nothing else.")] = False,
    as_json: Json = False,
) -> int:
    """Show what the cache of decoded frames holds, or clear it. MSFNET_CACHE names another folder than the user's."""
    from msfnet.data.cache import store
    from msfnet.data.cache.frame_cache import default_folder
    from msfnet.recipe import Data

    folder = default_folder()
    if clear:
        freed_bytes = store.clear(folder).used_bytes
        document = json.dumps({"folder": str(folder), "freed_bytes": freed_bytes})
        print(document if as_json else f"freed {freed_bytes / 2**30:.2f} GB of {folder}")
        return 0
    usage, budget_gb = store.usage(folder), Data().cache_gib
    oldest = datetime.fromtimestamp(usage.oldest_use).isoformat(" ", "seconds") if usage.oldest_use else None
    if as_json:
        row = {"entries": usage.entries, "bytes": usage.used_bytes, "budget_bytes": int(budget_gb * 2**30)}
        print(json.dumps({"folder": str(folder)} | row | {"oldest_use": oldest, "damaged": usage.damaged}))
        return 0
    print(f"folder      {folder}")
    print(f"entries     {usage.entries:,}, {usage.damaged} found damaged and dropped so far")
    print(f"size        {usage.used_bytes / 2**30:.2f} GB of {budget_gb:g} GB (data.cache_gib)")
    print(f"oldest use  {oldest or '-'}")
    return 0

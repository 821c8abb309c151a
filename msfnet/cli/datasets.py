"""Commands for datasets: check them, preview augmentation, pack them into shards, show and clear the frame cache."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from msfnet.atomic_io import write_text
from msfnet.cli.app import (
    Annotations,
    DataPath,
    Json,
    RecipeName,
    Settings,
    Split,
    app,
    finish,
    log,
    resumable,
    to_json,
)
from msfnet.types import UserError


@app.command
def doctor(
    data: Annotated[Path, Parameter(help="DATA as for train, except shards; or one video, or videos without classes.")],
    /,
    *,
    annotations: Annotations = None,
    split: Split = 1,
    out: Annotated[Path | None, Parameter(help="Manifest to write of the videos that can be trained on.")] = None,
    report: Annotated[Path | None, Parameter(help="Folder for report.html and doctor.json.")] = None,
    recipe: RecipeName = "small",
    set_: Settings = (),
    as_json: Json = False,
) -> int:
    """Decode every video; report damage, duplicates and data leakage; estimate what training with RECIPE costs."""
    from msfnet.doctor.examination import examine, write_clean_manifest
    from msfnet.doctor.page import write_doctor_page
    from msfnet.recipe import load_recipe

    settings = load_recipe(recipe, set_)
    with resumable():
        examination = examine(data, annotations, split, settings, needs_classes=out is not None)
    text = to_json(examination.to_dict())
    if report:
        report.mkdir(parents=True, exist_ok=True)
        write_doctor_page(report / "report.html", examination)
        write_text(report / "doctor.json", text)
    if out:
        log.info("%s", write_clean_manifest(out, examination))
    print(text if as_json else examination.to_text())
    return 1 if examination.problems else 0


@app.command
def preview(
    data: DataPath,
    /,
    *,
    annotations: Annotations = None,
    split: Split = 1,
    recipe: RecipeName = "small",
    set_: Settings = (),
    out: Annotated[Path, Parameter(help="Page to write.")] = Path("preview.html"),
) -> int:
    """Write a page that shows what the augmentation of a recipe does to clips of a dataset."""
    from msfnet.data.annotations.readers import read_dataset
    from msfnet.data.augment.preview import write_augmentation_page
    from msfnet.recipe import load_recipe

    settings = load_recipe(recipe, set_)
    write_augmentation_page(read_dataset(data, annotations, split), settings, out)
    return finish(out)


@app.command
def shard(
    data: Annotated[Path, Parameter(help="DATA as for train, except shards.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder for the shards.")],
    annotations: Annotations = None,
    split: Split = 1,
    recipe: Annotated[
        str, Parameter(help="Recipe, or recipe.toml of a run, that the shards are for: it decides size and split.")
    ] = "small",
    set_: Settings = (),
    shard_size_mib: Annotated[int, Parameter(help="Size in MiB from which on the next shard is started.")] = 256,
) -> int:
    """Pack a dataset into shards for streaming: tar archives of decoded, resized videos. The same command resumes."""
    from msfnet.data.annotations.readers import read_video_files
    from msfnet.data.shards.write import write_shards
    from msfnet.recipe import load_recipe

    if shard_size_mib < 1:
        raise UserError(f"expected --shard-size-mib of 1 or more, found {shard_size_mib}")
    files, settings = read_video_files(data, annotations, split), load_recipe(recipe, set_)
    with resumable():
        shards = write_shards(files, settings, data, out, shard_bytes=shard_size_mib * 2**20)
    print(out)
    return 1 if shards.unreadable else 0


cache = App(
    name="cache",
    help="Show the cache of decoded frames; `cache clear` empties it. MSFNET_CACHE names another folder for it.",
)
app.command(cache)


@cache.default
def show_cache(*, as_json: Json = False) -> int:
    """Show the cache of decoded frames."""
    from msfnet.data.cache import disk_cache
    from msfnet.data.cache.frame_cache import default_folder
    from msfnet.recipe import Data

    folder, limit_gib = default_folder(), Data().cache_gib
    usage = disk_cache.usage(folder)
    oldest = datetime.fromtimestamp(usage.oldest_use).isoformat(" ", "seconds") if usage.oldest_use else None
    if as_json:
        sizes = {"entries": usage.entries, "bytes": usage.used_bytes, "budget_bytes": int(limit_gib * 2**30)}
        return finish(to_json({"folder": str(folder)} | sizes | {"oldest_use": oldest, "damaged": usage.damaged}))
    lines = (
        f"folder      {folder}",
        f"entries     {usage.entries:,}, {usage.damaged} damaged ones removed so far",
        f"size        {usage.used_bytes / 2**30:.2f} GiB of {limit_gib:g} GiB (data.cache_gib)",
        f"oldest use  {oldest or '-'}",
    )
    return finish("\n".join(lines))


@cache.command
def clear(*, as_json: Json = False) -> int:
    """Remove all frames from the cache, and nothing else."""
    from msfnet.data.cache import disk_cache
    from msfnet.data.cache.frame_cache import default_folder

    folder = default_folder()
    freed_bytes = disk_cache.clear(folder).used_bytes
    document = to_json({"folder": str(folder), "freed_bytes": freed_bytes})
    return finish(document if as_json else f"freed {freed_bytes / 2**30:.2f} GiB in {folder}")

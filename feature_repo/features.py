"""Feast's objects, projected from the one specification of the features.

What goes here: entity, source and feature view of every view in ``ct_assets.features.spec.VIEWS`` and of every stream
definition of the instances (``ct_assets/defs/**/streams/*.yaml``); a feature service for every pipeline's model. What does not: names, types or windows of features:
change the specification or the definition and run `feast apply` again.

Which way to a training set: ``ct_assets.features.training_set.training_frame`` computes features and labels at their
origin and never drops a label row. Feast's PostgreSQL store keeps label rows too (a test holds it), but it reads the
current version of each day only, and where a source has two rows of equal key and timestamps it returns a label twice;
the published view has one row per day and product, so that cannot happen here.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field  # noqa: TID253 (only Feast imports this file)
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource  # noqa: TID253
from feast.types import Float32, Float64, Int64, String  # noqa: TID253
from feast.value_type import ValueType  # noqa: TID253

import ct_assets.defs
from ct_assets.adapters.feast.projection import NAME_TAG, definition_files
from ct_assets.adapters.feast.projection import projected as projected_streams
from ct_assets.features import spec
from ct_assets.platform.spec import PipelineSpec, load_pipelines
from ct_assets.streaming.definition import load_definition

TYPES = {"float32": Float32, "float64": Float64, "int64": Int64, "string": String}

# 0 = no limit. Feast gives a label row older than the ttl empty features (its default store drops the row); here a
# product that is no longer active has no newer row, and how old its last one may be is the reader's decision.
NO_TTL = timedelta(0)


def entity_of(view: spec.FeatureView) -> Entity:
    """The entity of a view: its key column is its name."""
    return Entity(
        name=view.entity, join_keys=[view.entity], value_type=ValueType.STRING, description=f"key of {view.name}"
    )


def projected(view: spec.FeatureView, entity: Entity) -> FeatureView:
    """A Feast feature view over the published table `feature.<name>`, current version of each day.

    ``event_timestamp`` is the end of the day that a row describes (its values are known from then on),
    ``created_timestamp`` when that version became known.
    """
    return FeatureView(
        name=view.name,
        entities=[entity],
        ttl=NO_TTL,
        schema=[
            Field(name=view.entity, dtype=String),
            *(Field(name=f.name, dtype=TYPES[f.dtype], description=f.description) for f in view.features),
        ],
        source=PostgreSQLSource(
            name=f"{view.name}_published",
            query=f'select * from feature."{view.name}"',
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
            description="the published feature table: the current version of each day",
        ),
        description=view.description,
        tags={"spec_digest": view.digest, "lookback_days": str(view.lookback_days)},
    )


def service_of(pipeline: PipelineSpec, views: dict[str, FeatureView]) -> FeatureService:
    """What the pipeline's model reads, under the model's name. Of a live view the tags carry the hash: `ct serve` reads
    by the version its champion was trained on, this service by the one that was applied."""
    assert pipeline.model is not None
    names = pipeline.features
    if pipeline.source.stream is not None:
        names = (load_definition(pipeline.source.stream).name,)
    chosen = [views[name] for name in names]
    tags = {"pipeline": pipeline.name, "trainer": pipeline.model.trainer}
    for view in chosen:
        tags |= view.tags if NAME_TAG in view.tags else {}
    return FeatureService(
        name=pipeline.model.name,
        features=chosen,
        description=f"features of {pipeline.domain}/{pipeline.model.name}",
        owner=pipeline.owner.team,
        tags=tags,
    )


# `feast apply` registers what it finds as variables of a module, not what lists hold.
ENTITIES = {view.entity: entity_of(view) for view in spec.VIEWS.values()}
globals().update(ENTITIES)
globals().update({name: projected(view, ENTITIES[view.entity]) for name, view in spec.VIEWS.items()})
for root in ct_assets.defs.__path__:
    globals().update(projected_streams(definition_files(Path(root))))
VIEWS = {name: found for name, found in list(globals().items()) if isinstance(found, FeatureView)}
for root in ct_assets.defs.__path__:
    for pipeline in load_pipelines(Path(root)).values():
        if pipeline.model is not None:
            globals()[f"{pipeline.model.name}_service"] = service_of(pipeline, VIEWS)

-- The ledger (what arrived, what was published, which model leads) and the four schemas readers see.
-- Times are the database's (F38). Physical tables made from contracts live in `store`; readers use the views in
-- `clean`, `quarantine` and `feature`, which show published rows only.

create schema ledger;
create schema store;
create schema clean;
create schema quarantine;
create schema feature;

comment on schema store is 'physical tables with every revision ever published; readers use clean, quarantine, feature';

-- One row per (pipeline, sha256, day): the same bytes for the same day arrive once, whatever their name.
create table ledger.delivery (
    delivery_id     bigint generated always as identity primary key,
    pipeline        text not null,
    name            text not null,                 -- base name of the first arrival
    sha256          text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    bytes           bigint not null,
    day             date,                          -- ISO date that begins the name; null: none
    state           text not null default 'pending'
                    check (state in ('pending', 'published', 'held', 'rejected')),
    received_at     timestamptz not null default clock_timestamp(),
    decided_at      timestamptz,
    fence           bigint not null default 0,     -- grows with every attempt; a decision needs the newest
    contract_digest text,                          -- under which it was decided
    verdict         jsonb
);
create unique index delivery_identity on ledger.delivery (pipeline, sha256, coalesce(day, 'infinity'::date));
create index delivery_pending on ledger.delivery (pipeline, delivery_id) where state = 'pending';
create index delivery_day on ledger.delivery (pipeline, day);

-- Every further arrival of a delivery that is known already (F06).
create table ledger.delivery_alias (
    alias_id    bigint generated always as identity primary key,
    delivery_id bigint not null references ledger.delivery,
    name        text not null,
    arrived_at  timestamptz not null default clock_timestamp()
);
create index delivery_alias_delivery on ledger.delivery_alias (delivery_id);

create sequence ledger.revision_id;

-- One row per revision of (dataset, day, part). `held`: complete but waiting for approval. The rows of the revision
-- carry its revision_id and become visible through the views in the same transaction.
create table ledger.publication (
    revision_id      bigint primary key,
    pipeline         text not null,
    dataset          text not null,
    day              date not null,
    part             text not null default '',     -- '' for dated deliveries, the file name for undated ones
    revision         integer not null check (revision >= 1),
    state            text not null check (state in ('published', 'held', 'withdrawn')),
    delivery_id      bigint not null references ledger.delivery,
    sha256           text not null,
    contract_digest  text not null,
    contract_version text not null,
    code_version     text not null,
    known_at         timestamptz not null,         -- revision 1: end of its business day; later ones: when published
    published_at     timestamptz not null default clock_timestamp(),
    superseded_at    timestamptz,
    rows             jsonb not null,
    diff             jsonb,
    approved_by      text,
    unique (dataset, day, part, revision)
);
-- The hard guarantee under the advisory lock: one visible revision.
create unique index publication_current on ledger.publication (dataset, day, part)
    where superseded_at is null and state = 'published';
create index publication_delivery on ledger.publication (delivery_id);
create index publication_pipeline_day on ledger.publication (pipeline, day);

-- Rows that broke a rule, of every revision of every dataset. `raw` is verbatim except NUL, which PostgreSQL's text
-- cannot hold: it is stored as U+2400; the delivery's own bytes keep it.
create table ledger.quarantined (
    revision_id bigint not null,
    line        bigint not null,
    raw         text not null,
    reasons     text[] not null
);
create index quarantined_revision on ledger.quarantined (revision_id, line);

create table ledger.incident (
    incident_id bigint generated always as identity primary key,
    fingerprint text not null,                     -- digest of contract + rule + partition
    pipeline    text not null,
    dataset     text not null,
    day         date,
    rule        text not null,
    message     text not null,
    detail      jsonb not null default '{}',
    delivery_id bigint references ledger.delivery,
    state       text not null default 'open' check (state in ('open', 'closed')),
    occurrences integer not null default 1,
    first_seen  timestamptz not null default clock_timestamp(),
    last_seen   timestamptz not null default clock_timestamp(),
    closed_at   timestamptz
);
create unique index incident_open on ledger.incident (fingerprint) where state = 'open';

-- A plan of partitions to rebuild, kept so that only what failed is done again (F41).
create table ledger.run_plan (
    plan_id    text not null,
    pipeline   text not null,
    step       text not null,
    partition  text not null,
    state      text not null default 'planned' check (state in ('planned', 'done', 'failed')),
    attempts   integer not null default 0,
    message    text,
    planned_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    primary key (plan_id, step, partition)
);

-- Versions of a feature view's rows per day; physical rows in store.<view> carry version_id.
create table ledger.feature_version (
    version_id    bigint generated by default as identity primary key,
    view          text not null,
    day           date not null,
    version       integer not null,
    known_at      timestamptz not null,
    input_digest  text not null,
    code_version  text,
    rows          bigint not null,
    created_at    timestamptz not null default clock_timestamp(),
    superseded_at timestamptz,
    unique (view, day, version)
);
create unique index feature_version_current on ledger.feature_version (view, day) where superseded_at is null;

create table ledger.model_version (
    model           text not null,
    version         integer not null,
    run_id          text not null,                 -- idempotency: one version per (model, run_id)
    cutoff          date not null,
    known_as_of     timestamptz,
    recipe_digest   text not null,
    data_digest     text not null,
    contract_digest text not null,
    code_version    text not null,
    seed            bigint not null,
    recipe          jsonb not null default '{}',
    metrics         jsonb not null default '{}',
    gates           jsonb not null default '{}',
    decision        text not null,                 -- promoted | refused | baseline ...
    artefact_key    text not null,
    artefact_sha256 text not null,
    created_at      timestamptz not null default clock_timestamp(),
    primary key (model, version),
    unique (model, run_id)
);

-- The pointer: moved only by compare-and-set on `generation`.
create table ledger.champion (
    model       text primary key,
    version     integer not null,
    generation  bigint not null default 1,
    decided_at  timestamptz not null default clock_timestamp(),
    decided_by  text not null,
    reason      text not null,
    mirrored_at timestamptz,                       -- when the registry's alias followed
    foreign key (model, version) references ledger.model_version
);
create table ledger.champion_history (
    model      text not null,
    generation bigint not null,
    version    integer not null,
    previous   integer,
    decided_at timestamptz not null default clock_timestamp(),
    decided_by text not null,
    reason     text not null,
    evidence   jsonb not null default '{}',
    primary key (model, generation)
);

-- Measures of a recipe refitted at one origin, kept so that a comparison is not computed twice.
create table ledger.evaluation (
    model         text not null,
    recipe_digest text not null,
    data_digest   text not null,
    origin        date not null,
    measures      jsonb not null,
    created_at    timestamptz not null default clock_timestamp(),
    primary key (model, recipe_digest, data_digest, origin)
);

-- Published forecasts; physical rows in store.<prediction> carry forecast_id. Consumers keep the last good one.
create table ledger.forecast (
    forecast_id   bigint generated by default as identity primary key,
    prediction    text not null,
    model         text not null,
    model_version integer not null,
    as_of         date not null,
    rows          bigint not null,
    created_at    timestamptz not null default clock_timestamp(),
    superseded_at timestamptz
);
create unique index forecast_current on ledger.forecast (prediction) where superseded_at is null;

create table ledger.metric (
    metric_id bigint generated always as identity primary key,
    subject   text not null,                       -- asset key or model
    name      text not null,
    day       date,
    value     double precision,
    labels    jsonb not null default '{}',
    at        timestamptz not null default clock_timestamp()
);
create index metric_subject on ledger.metric (subject, name, at);

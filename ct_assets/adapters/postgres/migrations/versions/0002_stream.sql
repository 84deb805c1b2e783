-- State of streams. Everything one commit of a worker writes lies in this database, so that it is one transaction.
-- Event times, append times and known-at times are microseconds since 1970 UTC (bigint), as in the code; times at which
-- something was done are timestamptz by the database's clock.
create schema stream;
create schema online;

-- One acceptance (what decides whether an event is accepted) over one topic.
create table stream.stream (
    stream_id integer generated always as identity primary key,
    name text not null,
    acceptance_digest text not null,
    acceptance jsonb not null,
    contract_digest text not null,
    source_kind text not null,
    cluster_id text not null,
    topic text not null,
    topic_id text not null,
    ingestion_lag_us bigint not null default 1000000,
    removed_before bigint,  -- events before this event time were removed by retention: what needs them is refused
    created_at timestamptz not null default clock_timestamp(),
    unique (acceptance_digest, cluster_id, topic, topic_id)
);

-- Where reading goes on, who may write (epoch: a claim raises it and thereby fences older owners), and how far time is.
create table stream.partition (
    stream_id integer not null references stream.stream,
    partition integer not null,
    next_offset bigint not null default -2,  -- -2: from the first one that the topic still holds
    epoch bigint not null default 0,
    owner text,
    top bigint,
    frontier bigint,
    last_append bigint,
    leader_epoch integer,
    caught_up boolean not null default false,
    events bigint not null default 0,
    late_accepted bigint not null default 0,
    late_dead bigint not null default 0,
    duplicates bigint not null default 0,
    dead bigint not null default 0,
    tombstones bigint not null default 0,
    replays bigint not null default 0,  -- dead letters that came back into this partition
    updated_at timestamptz not null default clock_timestamp(),
    primary key (stream_id, partition)
) with (fillfactor = 50);

create sequence stream.commit_id;

-- The accepted events, as Arrow IPC in zstd: offline log and write-ahead log of the window state in one.
-- A chunk lies in payload, or behind the storage port once compacted (location). replay: for events that came back from
-- the dead letters, the partition's count of replays with them; their offsets are those of the dead letters.
create table stream.chunk (
    chunk_id bigint generated always as identity primary key,
    stream_id integer not null references stream.stream,
    partition integer not null,
    first_offset bigint not null,
    next_offset bigint not null,
    commit_id bigint not null,
    replay bigint,
    rows integer not null,
    min_event_time bigint not null,
    max_event_time bigint not null,
    min_known_at bigint not null,
    max_known_at bigint not null,
    top_after bigint,
    payload bytea,
    location text,
    digest text not null,
    bytes integer not null,
    created_at timestamptz not null default clock_timestamp(),
    check ((payload is null) <> (location is null)),
    check (first_offset < next_offset and rows > 0)
);
alter table stream.chunk alter column payload set storage external;  -- compressed already
create index chunk_by_offset on stream.chunk (stream_id, partition, next_offset);
create index chunk_replayed on stream.chunk (stream_id, chunk_id) where replay is not null;

-- Files of compacted chunks, noted before they are written: one that no chunk names is garbage (a crash in between, or
-- retention), and is removed.
create table stream.chunk_file (
    location text primary key,
    stream_id integer not null references stream.stream,
    created_at timestamptz not null default clock_timestamp()
);

create table stream.dead_letter (
    dead_letter_id bigint generated always as identity primary key,
    stream_id integer not null references stream.stream,
    partition integer not null,
    "offset" bigint not null,
    reason text not null,
    error text not null,
    contract_digest text not null,
    raw bytea not null,
    append_time bigint,
    created_at timestamptz not null default clock_timestamp(),
    replayed_at timestamptz,
    outcome text,
    unique (stream_id, partition, "offset")
);
create index dead_letter_by_reason on stream.dead_letter (stream_id, reason, dead_letter_id);

-- Versions of a definition; each has its own physical online table.
create table stream.definition (
    definition_id integer generated always as identity primary key,
    name text not null,
    hash text not null,
    document jsonb not null,
    stream_id integer not null references stream.stream,
    table_name text not null unique,
    state text not null check (state in ('building', 'ready', 'retired')),
    built_to jsonb,
    compared jsonb,
    created_at timestamptz not null default clock_timestamp(),
    unique (stream_id, hash)
);

-- Which version answers under the definition's name: one compare-and-set row.
create table stream.active (
    name text primary key,
    definition_id integer not null references stream.definition,
    previous_id integer references stream.definition,
    changed_at timestamptz not null default clock_timestamp()
);

-- Online reads kept to be recomputed offline (determinism figure).
create table stream.read_sample (
    read_sample_id bigint generated always as identity primary key,
    definition_hash text not null,
    entity text not null,
    at bigint not null,
    values jsonb not null,
    offsets jsonb not null,  -- the version that was read: {partition: [next offset, replays]}
    is_stale boolean,
    checked_at timestamptz,
    mismatch jsonb,
    read_at timestamptz not null default clock_timestamp()
);
create index read_sample_by_definition on stream.read_sample (definition_hash, read_sample_id);

-- Of a stream at a moment (microseconds): up to when all events are in, up to when the state is known to be current, and
-- the version of what a reader sees: {partition: [next offset, replays]}. The rule of streaming/watermark.py.
create function stream.progress(in_stream integer, at_us bigint, out_of_orderness bigint, idle_timeout bigint)
returns table (watermark bigint, fresh_as_of bigint, version jsonb) language sql stable parallel safe as $$
    select
        case when count(*) filter (where active and top is null) > 0 then null
             when count(*) filter (where active) > 0 then min(top) filter (where active)
             else max(top) end - out_of_orderness,
        case when count(*) filter (where fresh is null) = 0 then min(fresh) end,
        coalesce(jsonb_object_agg(partition, jsonb_build_array(next_offset, replays)), '{}')
    from (
        select partition, top, next_offset, replays,
               not (top is null and caught_up)
                   and not (caught_up and (last_append is null or at_us - last_append >= idle_timeout)) as active,
               case when caught_up then (extract(epoch from updated_at) * 1000000)::bigint else last_append end as fresh
        from stream.partition where stream_id = in_stream
    ) p
$$;

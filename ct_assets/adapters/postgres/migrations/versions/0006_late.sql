-- Events that came later than allowed_lateness: dead letters, which online values never see, but part of the snapshots of
-- their hours. One row a partition and commit (or replay of dead letters), with the letters' offsets; the payload has the
-- form of stream.chunk's. replay: the partition's count of replays with them.
create table stream.late_chunk (
    late_chunk_id bigint generated always as identity primary key,
    stream_id integer not null references stream.stream on delete cascade,
    partition integer not null,
    offsets bigint[] not null,
    replay bigint,
    min_event_time bigint not null,
    max_event_time bigint not null,
    payload bytea not null,
    digest text not null,
    created_at timestamptz not null default clock_timestamp()
);
create index late_chunk_by_time on stream.late_chunk (stream_id, max_event_time);

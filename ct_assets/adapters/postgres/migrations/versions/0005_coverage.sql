-- Event time before which a version lacks events: retention had removed them when its table was made. Null: it lacks none.
alter table stream.definition add column lacks_before bigint;

-- Messages that a topic deleted before they were read, and that a person gave up (`ct stream accept-loss`). begins, ends:
-- between which times they had been appended, in microseconds, null where unknown.
create table stream.accepted_loss (
    stream_id integer not null references stream.stream,
    partition integer not null,
    first_offset bigint not null,
    next_offset bigint not null,
    begins bigint,
    ends bigint not null,
    accepted_by text not null,
    accepted_at timestamptz not null default clock_timestamp(),
    primary key (stream_id, partition, first_offset),
    check (first_offset < next_offset)
);

-- Versions of before: at most what retention has removed by now of the events older than the version; one that is as old as
-- its stream has seen all of them.
update stream.definition d
set lacks_before = least(s.removed_before, (extract(epoch from d.created_at) * 1000000)::bigint)
from stream.stream s
where s.stream_id = d.stream_id and s.removed_before is not null and d.created_at > s.created_at + interval '1 minute';

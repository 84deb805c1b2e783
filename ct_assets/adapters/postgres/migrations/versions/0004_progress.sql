-- caught_up says what was so at updated_at, also after the worker has ended or given the partition back: what was idle
-- then stays idle, and what was not does not become idle by time alone, because nobody looks whether messages came.
-- The rule of streaming/watermark.py; see 0002_stream.sql for what is returned.
create or replace function stream.progress(in_stream integer, at_us bigint, out_of_orderness bigint, idle_timeout bigint)
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
                   and not (caught_up and (last_append is null or least(at_us, looked) - last_append >= idle_timeout))
                   as active,
               case when caught_up then looked else last_append end as fresh
        from (
            select *, (extract(epoch from updated_at) * 1000000)::bigint as looked
            from stream.partition where stream_id = in_stream
        ) q
    ) p
$$;

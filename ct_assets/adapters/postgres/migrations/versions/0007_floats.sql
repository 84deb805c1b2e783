-- Doubles from left to right as IEEE 754 has it, for arrays that hold very large ones: PostgreSQL's own arithmetic raises
-- where the result is beyond the largest double. The usual arrays never come here: see adapters/stream/online_floats.py.
-- All items are finite (an event with another is no event); 2^970 is half of what the largest double lies apart from the
-- one below it, so only two numbers of that size can get beyond it, and their halves add alike without.

create function stream.float_sum(doubles double precision[])
returns double precision language plpgsql immutable strict parallel safe as $$
declare
    total double precision := 0;
    x double precision;
begin
    foreach x in array doubles loop
        if abs(total) >= 1e291 and abs(x) >= 1e291 and abs(total * 0.5 + x * 0.5) >= 8.98846567431158e307 then  -- 2^1023
            return case when total > 0 then 'infinity' else '-infinity' end;  -- no finite number leads back
        end if;
        total := total + x;
    end loop;
    return total;
end
$$;

-- Sample variance in two passes. Squares are never negative, so the first infinity is the sum.
create function stream.float_variance(doubles double precision[])
returns double precision language plpgsql immutable strict parallel safe as $$
declare
    n integer := cardinality(doubles);
    mean double precision := stream.float_sum(doubles);
    total double precision := 0;
    square double precision;
    x double precision;
begin
    if n < 2 then
        return null;
    end if;
    mean := case when abs(mean) <= n / 2 * double precision '5e-324' then 0 else mean / n end;  -- raises when it becomes 0
    foreach x in array doubles loop
        -- 2^512 is the least number whose square is beyond a double; of unlike signs the larger is less than the distance
        if (x > 0) <> (mean > 0) and greatest(abs(x), abs(mean)) >= 1.3407807929942597e154 then
            return 'infinity';
        end if;
        if abs(x - mean) >= 1.3407807929942597e154 then
            return 'infinity';
        end if;
        -- the largest number whose square becomes 0
        square := case when abs(x - mean) <= 1.5717277847026285e-162 then 0 else (x - mean) * (x - mean) end;
        if total >= 1e291 and square >= 1e291 and total * 0.5 + square * 0.5 >= 8.98846567431158e307 then
            return 'infinity';
        end if;
        total := total + square;
    end loop;
    return case when total <= (n - 1) / 2 * double precision '5e-324' then 0 else total / (n - 1) end;
end
$$;

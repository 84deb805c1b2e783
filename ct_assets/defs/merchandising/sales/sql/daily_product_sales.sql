-- Sales per day and product, of good rows of products. A cancellation is an invoice that begins with C.
-- units and revenue are gross (cancellations are counted in units_returned, not netted); revenue is exact.
select
    :day as day,
    stock_code,
    coalesce(sum(quantity) filter (where not is_cancellation), 0)::bigint as units,
    coalesce(sum(quantity * unit_price) filter (where not is_cancellation), 0)::numeric as revenue,
    count(distinct invoice_no) filter (where not is_cancellation) as orders,
    coalesce(-sum(quantity) filter (where is_cancellation), 0)::bigint as units_returned
from (
    select *, invoice_no like 'C%' as is_cancellation
    from store.sales_lines
    where _revision_id = :revision_id and is_product
) as lines
group by stock_code

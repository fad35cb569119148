{#
    Aggregates that may leave the house: counts of people and sums per cell, hidden where they would say too much about
    one person. See docs/small-cells.md.

        sales as (

            {{ small_cells('purchases_by_category', cells=['month_date', 'category'], subject='user_id',
                           values=['purchase_count', 'revenue_eur'], totals_by=['month_date']) }}

        )

    contributions  a CTE or relation, in which each row is something a person did
    cells          the columns that make a cell; null is a key like any other
    subject        the person; rows without one add to sums and to no count
    values         columns to sum, integer or numeric; to count rows, bring a column of ones; may be empty
    totals_by      those of the cells within which a total is published; [] for one grand total

    Gives one row per cell and, with is_total, one per total (its other cell columns are null):
    cells, is_total, user_count, values, is_suppressed. user_count and values are null where suppressed.

    One rule, for whatever can be read off the table: at least var('small_cell_k') people, and nobody with more than
    var('small_cell_dominance_ratio') of a value. It is asked of each cell; of each total; and of the hidden cells of a
    total taken together, which is what the total less the visible cells shows. To that end safe cells are hidden as
    well, those with the fewest people first, until the hidden ones are safe together. Where the total itself is hidden
    there is nothing to subtract from, and safe cells stay.
    People and shares are computed over persons, never added up from cells: someone may be in many. Sizes count, not
    signs: what a person adds to a cell is netted there, and its absolute amount adds up over cells. Unions of safe sets
    are then safe, so adding visible cells to each other says nothing new.

    Not protected: a second table of the same people (the other margin of a cross table, other cells, a total of these
    totals); two publications compared with each other; a total known from elsewhere that is hidden here; what all people
    of a cell have in common (a sum of zero, or nobody missing from the cell); who was not in a cell, where nearly
    everyone was; several people who pool what they know.
#}
{% macro small_cells(contributions, cells, subject, values, totals_by) -%}

    {%- if not cells or totals_by | reject('in', cells) | list -%}
        {{ exceptions.raise_compiler_error('small_cells: totals_by are some of the cells, and there is at least one.') }}
    {%- endif -%}
    {%- set k, ratio = var('small_cell_k'), var('small_cell_dominance_ratio') -%}
    {%- set cell, total = cells | join(', '), totals_by | join(', ') or 'true' -%}

    with people_in_cells as (

        select
            {{ cell }},
            {{ subject }} as person
            {%- for value in values %},
            coalesce(sum({{ value }}), 0) as {{ value }}
            {%- endfor %}
        from {{ contributions }}
        group by {{ cell }}, {{ subject }}

    ),

    judged as (

        select
            *,
            count(person) over cell as cell_user_count,
            count(person) over cell < {{ k }}
            {%- for value in values %}
            or max(abs({{ value }})) over cell > {{ ratio }} * sum(abs({{ value }})) over cell
            {%- endfor %} as is_unsafe
        from people_in_cells
        window cell as (partition by {{ cell }})

    ),

    -- the order in which cells are hidden
    ranked as (

        select
            *,
            dense_rank() over (
                partition by {{ total }} order by is_unsafe desc, cell_user_count asc, {{ cell }}
            ) as cell_rank
        from judged

    ),

    people_so_far as (

        select
            *,
            row_number() over so_far = 1 as is_new
            {%- for value in values %},
            sum(abs({{ value }})) over so_far as {{ value }}_so_far
            {%- endfor %}
        from ranked
        window so_far as (partition by {{ total }}, person order by cell_rank)

    ),

    cells as (

        select
            {{ cell }},
            cell_rank,
            is_unsafe,
            count(person) as user_count,
            count(person) filter (where is_new) as new_user_count
            {%- for value in values %},
            sum({{ value }}) as {{ value }},
            sum(abs({{ value }})) as {{ value }}_size,
            max({{ value }}_so_far) as {{ value }}_largest
            {%- endfor %}
        from people_so_far
        group by {{ cell }}, cell_rank, is_unsafe

    ),

    -- a heap is a cell and all before it: what a total would reveal if they were the hidden ones; the last is the total
    heaps as (

        select
            *,
            sum(new_user_count) over heap as heap_user_count,
            {%- for value in values %}
            sum({{ value }}) over heap as heap_{{ value }},
            {%- endfor %}
            sum(new_user_count) over heap < {{ k }}
            {%- for value in values %}
            or max({{ value }}_largest) over heap > {{ ratio }} * sum({{ value }}_size) over heap
            {%- endfor %} as is_heap_unsafe
        from cells
        window heap as (partition by {{ total }} order by cell_rank)

    ),

    judged_totals as (

        select
            *,
            count(*) over whole as cell_count,
            count(*) filter (where is_unsafe) over whole as unsafe_cell_count,
            last_value(is_heap_unsafe) over whole as is_total_unsafe
        from heaps
        window whole as (
            partition by {{ total }} order by cell_rank rows between unbounded preceding and unbounded following
        )

    ),

    smallest_safe_heaps as (

        select
            *,
            min(cell_rank) filter (where cell_rank >= unsafe_cell_count and not is_heap_unsafe) over (
                partition by {{ total }}
            ) as safe_heap_rank
        from judged_totals

    ),

    decided as (

        select
            {{ cell }},
            false as is_total,
            user_count,
            {%- for value in values %}
            {{ value }},
            {%- endfor %}
            is_unsafe
            or (unsafe_cell_count > 0 and not is_total_unsafe and cell_rank <= safe_heap_rank) as is_suppressed
        from smallest_safe_heaps

        union all

        select
            {% for column in cells -%}
            {{ column if column in totals_by else 'null' }},
            {% endfor -%}
            true,
            heap_user_count,
            {%- for value in values %}
            heap_{{ value }},
            {%- endfor %}
            is_total_unsafe
        from smallest_safe_heaps
        where cell_rank = cell_count

    )

    select
        {{ cell }},
        is_total,
        cast(case when not is_suppressed then user_count end as bigint) as user_count,
        {%- for value in values %}
        case when not is_suppressed then {{ value }} end as {{ value }},
        {%- endfor %}
        is_suppressed
    from decided

{%- endmacro %}

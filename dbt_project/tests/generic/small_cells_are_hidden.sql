{#
    Whether a table made with small_cells() keeps what it promises, as far as the finished table shows it. `totals_by` as
    given to the macro. A total less the visible cells is the hidden cell, where there is only one.
#}
{% test small_cells_are_hidden(model, count_column, measures=[], totals_by=[]) %}

    with cells as (

        select
            *,
            count(*) filter (where is_suppressed and not is_total) over total = 1
            and bool_or(is_total and not is_suppressed) over total as is_one_hidden_cell_revealed
        from {{ model }}
        window total as (partition by {{ totals_by | join(', ') or 'true' }})

    )

    select *
    from cells
    where
        is_suppressed is null
        or is_total is null
        or is_one_hidden_cell_revealed
        or (is_suppressed and num_nonnulls({{ ([count_column] + measures) | join(', ') }}) > 0)
        or (not is_suppressed and num_nulls({{ ([count_column] + measures) | join(', ') }}) > 0)
        or (not is_suppressed and {{ count_column }} < {{ var('small_cell_k') }})

{% endtest %}

{#
    The events of a relation, each with the number of its session: more than 30 minutes of inactivity end one.
    No `rows` frame in the second window: events of one minute are peers and belong to one session, in whatever order
    they come. Of several at its beginning one starts the session.
#}
{% macro in_sessions(events) -%}
    select
        gaps.*,
        time_since_previous is null or time_since_previous > interval '30 minutes' as is_session_start,
        count(*) filter (where time_since_previous is null or time_since_previous > interval '30 minutes')
            over (partition by user_id order by event_at) as session_number
    from (
        select
            {{ events }}.*,
            event_at - lag(event_at) over (partition by user_id order by event_at) as time_since_previous
        from {{ events }}
    ) as gaps
{%- endmacro %}

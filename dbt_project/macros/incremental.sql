{#
    Incremental models of Agora replace slices: the UTC days that loads touched, or the users whose events changed.
    Each model notes, in the transaction that writes it, which loads it has taken in (audit.built_loads). What is new,
    replaced or undone is the difference between that note and stg_ecommerce__loads. A kill anywhere loses nothing:
    content and note are committed together. See docs/incremental.md.
#}

{% macro model_key(relation) -%}
    '{{ relation.schema }}.{{ relation.identifier }}'
{%- endmacro %}


{# The days on which a load was added, replaced or undone since this model was last built; all with --full-refresh. #}
{% macro touched_dates(loads) -%}
    select touched.slice_date
    from {{ source('audit', 'load_slices') }} as touched
    where
        touched.load_id in (
            select load_id from {{ loads }}
            union
            select load_id from {{ source('audit', 'built_loads') }} where model = {{ model_key(this) }}
            {% if not flags.FULL_REFRESH -%}
            except
            (
                -- taken in as it is now: a replay of quarantined lines adds rows to a load
                select load_id from (
                    select load_id, rows_landed from {{ loads }}
                    intersect
                    select load_id, rows_landed
                    from {{ source('audit', 'built_loads') }} where model = {{ model_key(this) }}
                ) as unchanged
            )
            {%- endif %}
        )
{%- endmacro %}


{# Loads with rows on those days: lets Postgres skip all other raw rows by their block range. #}
{% macro touched_loads(loads) -%}
    select holding.load_id
    from {{ source('audit', 'load_slices') }} as holding
    where holding.slice_date in ({{ touched_dates(loads) }})
{%- endmacro %}


{% macro stale_users() -%}
    select stale.user_id from {{ source('audit', 'stale_users') }} as stale where stale.model = {{ model_key(this) }}
{%- endmacro %}


{# post-hook #}
{% macro note_built_loads(loads) -%}
    delete from {{ source('audit', 'built_loads') }} where model = {{ model_key(this) }};
    insert into {{ source('audit', 'built_loads') }} (model, load_id, rows_landed)
    select {{ model_key(this) }}, load_id, rows_landed from {{ loads }};
{%- endmacro %}


{#
    pre-hook of a model that takes in all users at once the first time. In the order of an index their events lie
    scattered over the table: with 17 million, reading them so took half as long again as sorting them.
#}
{% macro sort_all_users() -%}
    {% if not is_incremental() %}set local enable_indexscan = off{% endif %}
{%- endmacro %}


{# post-hook #}
{% macro forget_stale_users() -%}
    delete from {{ source('audit', 'stale_users') }} where model = {{ model_key(this) }};
{%- endmacro %}


{#
    Incremental strategy replace_dates: the rows of the touched days make way; models listed in meta.wakes hear whose of
    them are others now. A file that came again with one line mended wakes one user, not everybody in it.
#}
{% macro get_incremental_replace_dates_sql(arg_dict) -%}
    {%- set target, fresh = arg_dict['target_relation'], arg_dict['temp_relation'] -%}
    {%- set names = arg_dict['dest_columns'] | map(attribute='name') | list -%}
    {%- set columns = get_quoted_csv(names) -%}
    {#- not which load and line a row came with -#}
    {%- set content = get_quoted_csv(names | reject('in', ['_load_id', '_row_number'])) -%}
    {%- set touched = touched_dates(ref('stg_ecommerce__loads')) -%}
    {%- for model_name in config.get('meta', {}).get('wakes', []) %}
    insert into {{ source('audit', 'stale_users') }} (model, user_id)
    select distinct '{{ target.schema }}.{{ model_name }}', user_id
    from (
        select {{ content }} from {{ target }} where event_date = any(array({{ touched }}))
        union all
        select {{ content }} from {{ fresh }}
    ) as standing_and_fresh
    {%- if not flags.FULL_REFRESH %}
    -- on one side only
    group by {{ content }}
    having count(*) = 1
    {%- endif %}
    on conflict do nothing;
    {%- endfor %}
    delete from {{ target }} where event_date = any(array({{ touched }}));
    insert into {{ target }} ({{ columns }}) select {{ columns }} from {{ fresh }};
{%- endmacro %}


{#
    post-hook of a model replaced by days. `create table … as` leaves less room in a page than rows to come ask for with
    this; without it they would be strewn over the gaps of all pages, and reading a month would be reading everything.
#}
{% macro keep_days_together() -%}
    alter table {{ this }} set (fillfactor = 95)
{%- endmacro %}


{# Incremental strategy replace_users: all rows of the stale users make way. #}
{% macro get_incremental_replace_users_sql(arg_dict) -%}
    {%- set target, fresh = arg_dict['target_relation'], arg_dict['temp_relation'] -%}
    {%- set columns = get_quoted_csv(arg_dict['dest_columns'] | map(attribute='name')) -%}
    delete from {{ target }} where user_id in ({{ stale_users() }});
    insert into {{ target }} ({{ columns }}) select {{ columns }} from {{ fresh }};
{%- endmacro %}

{#
    Tables are filled by `create table … as` and constrained afterwards, in one transaction. dbt's own way for models with
    a contract inserts into an empty table: such a query is never parallel, and keys are checked row by row instead of
    sorted once. Names and types are those of the contract, as with dbt's own.
#}
{% macro postgres__create_table_as(temporary, relation, sql) -%}
    {%- set has_contract = config.get('contract').enforced and not temporary -%}
    {{ config.get('sql_header', none) or '' }}
    create {{ 'temporary' if temporary }} table {{ relation }} as (
    {%- if has_contract %}
        {{ get_assert_columns_equivalent(sql) }}
        select
        {%- for column in model.columns.values() %}
            cast({{ adapter.quote(column.name) if column.quote else column.name }} as {{ column.data_type }}) as {{ adapter.quote(column.name) if column.quote else column.name }}{{ ',' if not loop.last }}
        {%- endfor %}
        from (
            {{ sql }}
        ) as model_subq
    {%- else %}
        {{ sql }}
    {%- endif %}
    );
    {%- set constraints = column_constraints() if has_contract else [] %}
    {%- if constraints %}
    alter table {{ relation }} {{ constraints | join(', ') }};
    {%- endif %}
{%- endmacro %}


{# What `alter table` is to add for the constraints of the model's columns; refuses kinds it would not enforce. #}
{% macro column_constraints() -%}
    {%- set clauses = [] -%}
    {%- for constraint in model.constraints -%}
        {{ exceptions.raise_compiler_error('Constraints stand beside a column, not beside the model ' ~ model.name ~ '.') }}
    {%- endfor -%}
    {%- for column in model.columns.values() -%}
        {%- for constraint in column.constraints -%}
            {%- if constraint.type == 'not_null' -%}
                {%- do clauses.append('alter column ' ~ column.name ~ ' set not null') -%}
            {%- elif constraint.type == 'primary_key' -%}
                {%- do clauses.append('add primary key (' ~ column.name ~ ')') -%}
            {%- elif constraint.type == 'check' -%}
                {%- do clauses.append('add check (' ~ constraint.expression ~ ')') -%}
            {%- elif constraint.type == 'foreign_key' -%}
                {%- do clauses.append(
                    'add foreign key (' ~ column.name ~ ') references ' ~ constraint.to ~ ' (' ~ constraint.to_columns | join(', ') ~ ')'
                ) -%}
            {%- else -%}
                {{ exceptions.raise_compiler_error('A constraint of type ' ~ constraint.type ~ ' is not known to create_table_as.') }}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(clauses) }}
{%- endmacro %}

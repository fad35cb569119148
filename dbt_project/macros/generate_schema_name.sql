{# Production targets build marts in a schema of their own generation; see docs/publish.md. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set schema = (custom_schema_name or target.schema) | trim -%}
    {%- if not is_production() -%}
        {{ target.schema if not custom_schema_name else target.schema ~ '_' ~ schema }}
    {%- elif is_mart(node) and flags.WHICH not in reading_commands() -%}
        {{ schema ~ '_next_' ~ generation() }}
    {%- else -%}
        {{ schema }}
    {%- endif -%}
{%- endmacro %}


{# A mart is called fct_ecommerce__purchases in the project and ecommerce.fct_purchases in the warehouse. #}
{% macro generate_alias_name(custom_alias_name=none, node=none) -%}
    {%- if custom_alias_name -%}
        {{ custom_alias_name | trim }}
    {%- elif is_mart(node) -%}
        {{ node.name | replace(mart_domain(node) ~ '__', '') }}
    {%- else -%}
        {{ node.name }}
    {%- endif -%}
{%- endmacro %}


{% macro is_production() -%}
    {{ return(target.name in ['embedded', 'server']) }}
{%- endmacro %}


{% macro is_mart(node) -%}
    {{ return(node.resource_type == 'model' and node.fqn[1] == 'marts') }}
{%- endmacro %}


{% macro mart_domain(node) -%}
    {{ return(node.fqn[2]) }}
{%- endmacro %}


{% macro reading_commands() -%}
    {{ return(['test', 'docs', 'generate', 'compile', 'show', 'parse', 'list', 'ls', 'source', 'freshness']) }}
{%- endmacro %}


{% macro generation() -%}
    {{ return(run_started_at.strftime('%Y%m%d%H%M%S%f')) }}
{%- endmacro %}

{# Names the domains that have marts among these nodes. #}
{% macro mart_domains(nodes) -%}
    {%- set domains = [] -%}
    {%- for node in nodes if is_mart(node) and mart_domain(node) not in domains -%}
        {%- do domains.append(mart_domain(node)) -%}
    {%- endfor -%}
    {{ return(domains) }}
{%- endmacro %}


{#
    unique_id of everything that must be green before a domain is published: its marts and all tests on them.
    dbt does not show unit tests to macros; logic with a branch, and its unit test, therefore lives in intermediate.
#}
{% macro publication_needs(domain) -%}
    {%- set marts = [] -%}
    {%- for node in graph.nodes.values() if is_mart(node) and mart_domain(node) == domain -%}
        {%- do marts.append(node.unique_id) -%}
    {%- endfor -%}
    {%- set tests = [] -%}
    {%- for node in graph.nodes.values() -%}
        {%- if node.resource_type == 'test' -%}
            {%- for parent in node.depends_on.nodes if parent in marts and node.unique_id not in tests -%}
                {%- do tests.append(node.unique_id) -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return({'marts': marts, 'tests': tests}) }}
{%- endmacro %}


{# on-run-start: a generation is whole or it is not begun #}
{% macro refuse_partial_marts() -%}
    {%- if execute and is_production() and flags.WHICH in ['run', 'build'] -%}
        {%- for domain in mart_domains(graph.nodes.values()) -%}
            {%- set marts = publication_needs(domain).marts -%}
            {%- set missing = marts | reject('in', selected_resources) | list -%}
            {%- if missing and missing | length < marts | length -%}
                {%- do run_query('drop schema if exists ' ~ domain ~ '_next_' ~ generation()) -%}
                {{ exceptions.raise_compiler_error(
                    'The marts of ' ~ domain ~ ' are built together or not at all: select tag:marts_' ~ domain
                    ~ ' as a whole (missing: ' ~ missing | join(', ') ~ '), or use --target dev.'
                ) }}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}


{# on-run-end: publishes each domain whose marts were all built, and every test on them run and passed #}
{% macro publish_marts(results) -%}
    {%- if execute and is_production() and flags.WHICH == 'build' -%}
        {%- set green = [] -%}
        {%- for result in results if result.status in ['success', 'pass', 'warn'] -%}
            {%- do green.append(result.node.unique_id) -%}
        {%- endfor -%}
        {%- for domain in mart_domains(graph.nodes.values()) -%}
            {%- set needs = publication_needs(domain) -%}
            {%- set lacking = (needs.marts + needs.tests) | reject('in', green) | list -%}
            {%- if not lacking -%}
                {%- set tables = [] -%}
                {%- for unique_id in needs.marts -%}
                    {%- do tables.append("'" ~ graph.nodes[unique_id].alias ~ "'") -%}
                {%- endfor -%}
                {%- do log('Publishing ' ~ domain ~ ', generation ' ~ generation(), info=true) -%}
                select audit.publish('{{ domain }}', '{{ generation() }}', array[{{ tables | join(', ') }}]);
            {%- elif needs.marts | select('in', selected_resources) | list -%}
                {%- do log(
                    domain ~ ' is not published: ' ~ lacking | join(', ') ~ ' not green. Readers keep the last generation.',
                    info=true
                ) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}

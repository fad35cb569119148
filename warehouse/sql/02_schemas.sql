create schema if not exists audit;
create schema if not exists quarantine;
create schema if not exists raw_ecommerce;
create schema if not exists ml_ecommerce;
create schema if not exists staging authorization transformer;
create schema if not exists intermediate authorization transformer;
create schema if not exists ecommerce authorization transformer;

grant usage on schema audit, raw_ecommerce to loader, transformer, steward;
grant usage on schema quarantine to loader, steward;
grant usage on schema ml_ecommerce to ml, transformer, steward;
grant usage on schema intermediate to ml;
grant usage on schema ecommerce to bi_reader;

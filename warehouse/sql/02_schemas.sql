create schema if not exists audit;
create schema if not exists quarantine;
create schema if not exists raw_ecommerce;
create schema if not exists ml_ecommerce;
create schema if not exists staging authorization transformer;
create schema if not exists intermediate authorization transformer;
create schema if not exists ecommerce authorization transformer;

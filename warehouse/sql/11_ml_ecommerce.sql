create table if not exists ml_ecommerce.customer_segments_runs (
    run_id text primary key,
    model_version text not null unique,
    seed integer not null,
    as_of timestamptz not null,
    user_count bigint not null,
    cluster_count integer not null,
    component_count integer not null,
    explained_variance_ratio double precision not null,
    inertia double precision not null,
    silhouette_ratio double precision,
    iteration_count integer not null,
    feature_names text [] not null,
    centroids jsonb not null,
    reasons jsonb not null,
    seconds double precision not null,
    created_at timestamptz not null
);
comment on table ml_ecommerce.customer_segments_runs is
'One row per fit of the customer segmentation; holds no personal row.';

-- people who were erased since: a model fitted while their rows were there may have learnt from them
alter table ml_ecommerce.customer_segments_runs add column if not exists erased_user_count bigint not null default 0;

create table if not exists ml_ecommerce.customer_segments (
    user_id bigint primary key,
    cluster_label integer not null,
    segment_name text not null,
    proba double precision not null,
    distance double precision not null,
    model_version text not null,
    updated_at timestamptz not null
);
comment on table ml_ecommerce.customer_segments is
'One row per user: the segment the last fit put them in. Replaced as a whole by each fit.';

-- a key to the runs asked the same question once per user, two thirds of the time of writing: a dbt test asks it once
alter table ml_ecommerce.customer_segments drop constraint if exists customer_segments_model_version_fkey;

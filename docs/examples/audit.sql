-- Questions to an exported log, for DuckDB: duckdb < audit.sql, in the folder that holds audit.parquet.
--   keystead audit export --format parquet --out audit.parquet --profile auditor.toml
-- Names and types of the columns are in docs/exports.md.

-- Which log is this, and by which checkpoint can a row be proven?
SELECT decode(key) AS name, decode(value) AS value
FROM parquet_kv_metadata('audit.parquet')
WHERE decode(key) LIKE 'keystead.%'
ORDER BY name;

-- Who used each asset version, how often, and when last?
SELECT asset, tenant, "user", count(*) AS releases, max(time) AS last
FROM (SELECT unnest(assets) AS asset, * FROM 'audit.parquet' WHERE kind = 'lease.granted')
GROUP BY ALL
ORDER BY asset, releases DESC;

-- In which jurisdictions were keys released, on how many nodes and devices?
SELECT jurisdiction, site, count(DISTINCT node) AS nodes, count(DISTINCT device) AS devices
FROM (SELECT jurisdiction, site, node, unnest(hardware) AS device FROM 'audit.parquet' WHERE kind = 'lease.granted')
GROUP BY ALL
ORDER BY nodes DESC;

-- What was refused, for which reason, by which policy?
SELECT reason, policy_digest, count(*) AS refusals
FROM (SELECT unnest(reasons) AS reason, policy_digest FROM 'audit.parquet' WHERE result = 'denied')
GROUP BY ALL
ORDER BY refusals DESC;

-- Who read the log, by the hour?
SELECT time_bucket(INTERVAL 1 HOUR, time) AS hour, actor_name, count(*) AS readings
FROM 'audit.parquet'
WHERE kind = 'audit.read'
GROUP BY ALL
ORDER BY hour;

-- Which history of the database this is: it changes where a standby is promoted, or where the cluster comes from an
-- archive or from a dump. What was committed before that may be missing. On a standby it is an error, since what
-- stands there may be older than what devices were told.
CREATE FUNCTION farshore.lineage() RETURNS text
    LANGUAGE plpgsql STABLE AS $function$
BEGIN
    RETURN (SELECT pg_catalog.to_hex(c.system_identifier) FROM pg_catalog.pg_control_system() AS c) || '/'
        || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8);
EXCEPTION
    -- Some hosts do not let anybody ask.
    WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN
        RETURN 'unknown';
END
$function$;

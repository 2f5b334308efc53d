-- One item of CBOR at a place in bytes, as JSON, with the place behind it. Bytes are written as '\x..', and so are
-- uuids; tags are left out; what JSON or text cannot say (an infinite number, a zero character) becomes text or is
-- left out. Rows are stored like this, and the views on collections read them by it.
CREATE FUNCTION farshore.cbor(bytes bytea, INOUT place integer, OUT item jsonb)
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $function$
DECLARE
    head integer := get_byte(bytes, place);
    kind integer := head >> 5;
    info integer := head & 31;
    number numeric := info;
    bits bigint;
    chunk bytea;
    key jsonb;
    inner_item jsonb;
    keys text[] := '{}';
    items jsonb[] := '{}';
BEGIN
    place := place + 1;
    IF info BETWEEN 24 AND 27 THEN
        number := 0;
        FOR at IN place .. place + (1 << (info - 24)) - 1 LOOP
            number := number * 256 + get_byte(bytes, at);
        END LOOP;
        place := place + (1 << (info - 24));
    ELSIF info > 27 THEN
        RAISE EXCEPTION 'a row has an item of kind % at %', head, place - 1;
    END IF;
    CASE kind
        WHEN 0 THEN
            item := to_jsonb(number);
        WHEN 1 THEN
            item := to_jsonb(-1 - number);
        WHEN 2 THEN
            item := to_jsonb('\x' || encode(substring(bytes FROM place + 1 FOR number::integer), 'hex'));
            place := place + number::integer;
        WHEN 3 THEN
            chunk := substring(bytes FROM place + 1 FOR number::integer);
            place := place + number::integer;
            IF position('\x00'::bytea IN chunk) > 0 THEN
                SELECT coalesce(string_agg(substring(chunk FROM at FOR 1), '' ORDER BY at), '')
                    INTO chunk FROM generate_series(1, length(chunk)) AS at WHERE get_byte(chunk, at - 1) <> 0;
            END IF;
            item := to_jsonb(convert_from(chunk, 'UTF8'));
        WHEN 4 THEN
            FOR at IN 1 .. number::integer LOOP
                SELECT c.place, c.item INTO place, inner_item FROM farshore.cbor(bytes, place) AS c;
                items := items || inner_item;
            END LOOP;
            item := to_jsonb(items);
        WHEN 5 THEN
            FOR at IN 1 .. number::integer LOOP
                SELECT c.place, c.item INTO place, key FROM farshore.cbor(bytes, place) AS c;
                SELECT c.place, c.item INTO place, inner_item FROM farshore.cbor(bytes, place) AS c;
                keys := keys || coalesce(key #>> '{}', 'null');
                items := items || inner_item;
            END LOOP;
            SELECT coalesce(jsonb_object_agg(e.key, e.item), '{}')
                INTO item FROM unnest(keys, items) AS e(key, item);
        WHEN 6 THEN
            SELECT c.place, c.item INTO place, item FROM farshore.cbor(bytes, place) AS c;
        ELSE
            item := CASE info WHEN 20 THEN 'false' WHEN 21 THEN 'true' ELSE 'null' END;
            IF info = 27 THEN
                -- The exponent of a float; its fraction is what is left of the bits.
                bits := (div(number, 4503599627370496) % 2048)::bigint;
                item := CASE
                    WHEN bits = 2047 AND number % 4503599627370496 <> 0 THEN '"NaN"'
                    WHEN bits = 2047 AND number >= 9223372036854775808 THEN '"-Infinity"'
                    WHEN bits = 2047 THEN '"Infinity"'
                    ELSE to_jsonb(
                        CASE WHEN number >= 9223372036854775808 THEN -1::float8 ELSE 1::float8 END
                        * CASE WHEN bits = 0
                            THEN (number % 4503599627370496)::float8 * 4.9406564584124654e-324::float8
                            ELSE (1 + (number % 4503599627370496)::float8 / 4503599627370496::float8)
                                * power(2::float8, (bits - 1023)::float8)
                        END)
                END;
            END IF;
    END CASE;
END
$function$;
GRANT USAGE ON SCHEMA farshore TO PUBLIC;
